"""A run that was stopped and went on in a fresh process ends as if it had never been stopped, to the last bit.

The list asks for data-loading workers 0 and 2. genlab has none: a batch is gathered from a store in memory, as a pure
function of the seed and its index, so that half of the thirty has nothing to try.
"""

import json
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from genlab.checks.training import leaves
from tests.faults import hooks
from tests.faults.harness import TINY, assert_runs_equal, checkpoint_of, fork, resume
from tests.faults.tally import Tally

pytestmark = pytest.mark.slow
FAULT = "1 resume"
STEPS_PER_EPOCH = 10
NUM_STEPS = 40
WORDS = ("dataset.num_validation=32", "dataset.num_test=1605")  # leaves 160 digits, ten batches, to train on
MOMENTS = {"the first step": 1, "mid-epoch": 7, "an epoch's end": 10, "the next epoch's first step": 11, "last - 1": 39}
QUICK = (("gan", "an epoch's end"),)


def witness(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.batches")


def delivered(folder: Path) -> list[tuple[int, list[int], str]]:
    return [tuple(json.loads(line)) for line in witness(folder).read_text().splitlines()]


def undisturbed(folder: Path, words: Sequence[str], *more_hooks: hooks.Hook) -> Path:
    watched = partial(hooks.together, partial(hooks.witnessed, witness(folder)), *more_hooks)
    fork(*words, folder=folder, hook=watched).succeed()
    return folder


def stopped_and_resumed(folder: Path, words: Sequence[str], *more_hooks: hooks.Hook, stop: int) -> Path:
    watched = (partial(hooks.witnessed, witness(folder)), *more_hooks)
    stopping = partial(hooks.together, *watched, partial(hooks.signalled_at, stop, signal.SIGTERM))
    ended = fork(*words, folder=folder, hook=stopping).wait()
    assert ended.returncode == 143, ended.stderr
    assert checkpoint_of(folder)["step"] == stop
    resume(folder, hook=partial(hooks.together, *watched)).succeed()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The undisturbed run of a family, made when it is first asked for."""

    class Runs(dict[str, Path]):
        def __missing__(self, family: str) -> Path:
            folder = tmp_path_factory.mktemp("whole") / family
            self[family] = undisturbed(folder, (*TINY[family], *WORDS))
            return self[family]

    return Runs()


CASES = [
    pytest.param(family, moment, marks=() if (family, moment) in QUICK else pytest.mark.slow)
    for family in TINY
    for moment in MOMENTS
]


def test_what_is_compared_holds_every_kind_of_state(whole: dict[str, Path]) -> None:
    gan, draw = (set(leaves(checkpoint_of(whole[family]))) for family in ("gan", "draw"))
    for part in ("/model.", "/average.", "/optimizer.generator.generator.", "/phases/discrim"):
        assert any(name.startswith(part) for name in gan), part
    for part in ("generator.reference", "historical_averaging.generator_0", "weight.0._u", "schedule/last_epoch"):
        assert any(part in name for name in gan), part
    assert any(name.startswith("/average.") for name in draw)


@pytest.mark.parametrize(("family", "moment"), CASES)
def test_a_fresh_process_resumes_to_the_last_bit(
    tmp_path: Path, whole: dict[str, Path], tally: Tally, family: str, moment: str
) -> None:
    with tally.trying(FAULT, f"stops of {family}"):
        cut = stopped_and_resumed(tmp_path / "cut", (*TINY[family], *WORDS), stop=MOMENTS[moment])
        assert_runs_equal(whole[family], cut)
        assert delivered(cut) == delivered(whole[family])


def test_every_image_comes_once_an_epoch_over_any_number_of_restarts(
    tmp_path: Path, whole: dict[str, Path], tally: Tally
) -> None:
    words = (*TINY["gated_pixelcnn"], *WORDS)
    folder = tmp_path / "cut"
    with tally.trying(FAULT, "epochs of four processes", count=NUM_STEPS // STEPS_PER_EPOCH):
        watched = partial(hooks.witnessed, witness(folder))
        for stop in (3, 14, 25):
            stopping = partial(hooks.together, watched, partial(hooks.signalled_at, stop, signal.SIGTERM))
            started = resume(folder, hook=stopping) if folder.exists() else fork(*words, folder=folder, hook=stopping)
            assert started.wait().returncode == 143
        assert resume(folder, hook=watched).wait().returncode == 0
        batches = delivered(folder)
        assert [index for index, _, _ in batches] == list(range(NUM_STEPS))
        for epoch in range(0, NUM_STEPS, STEPS_PER_EPOCH):
            rows = [row for _, chosen, _ in batches[epoch : epoch + STEPS_PER_EPOCH] for row in chosen]
            assert sorted(rows) == list(range(160))
        assert_runs_equal(whole["gated_pixelcnn"], folder)


def test_noise_that_depends_on_the_process_would_be_noticed(tmp_path: Path, tally: Tally) -> None:
    words = (*TINY["draw"], *WORDS)
    naive = undisturbed(tmp_path / "whole", words, hooks.seeded_once)
    cut = stopped_and_resumed(tmp_path / "cut", words, hooks.seeded_once, stop=MOMENTS["mid-epoch"])
    with pytest.raises(AssertionError):
        assert_runs_equal(naive, cut)
    assert delivered(naive) == delivered(cut)  # the order alone does not tell
    tally.wrong_variant_noticed(FAULT, "noise from generators that run on")
