"""One pass: configurations composed and read before a run or a sweep starts are reused."""

from collections import Counter
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

import genlab.train
from genlab.config import schema
from genlab.launch import sweep_job as jobs
from genlab.run import record
from tests.conftest import Genlab

TINY = ("model.num_glimpses=1", "model.num_units=4", "dataset.size=8", "trainer=smoke", "trainer.num_steps=1")
QUIET = ("trainer.sample_interval=0", "trainer.test_at_end=false", "num_threads=1")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts compositions by Hydra, trees that it opens, nodes that are bound, and runs that are read."""
    counts: Counter[str] = Counter()

    def counted(place: Any, name: str) -> None:
        function = getattr(place, name)

        def count(*arguments: Any, **keywords: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **keywords)

        monkeypatch.setattr(place, name, count)

    counted(ConfigLoaderImpl, "load_configuration")
    counted(ConfigLoaderImpl, "_process_config_searchpath")
    counted(schema, "bind_optimizer")
    counted(schema, "bind_schedule")
    counted(schema, "bind")
    counted(record, "load_run")
    monkeypatch.setattr(genlab.train, "load_run", record.load_run)
    return counts


def test_a_run_composes_once(genlab: Genlab, calls: Counter[str]) -> None:
    genlab("train", *TINY, *QUIET, "hydra.run.dir=run").checked()
    # bind: the data set, the model, the logger, the optimiser and the schedule.
    bound = {"bind": 5, "bind_optimizer": 1, "bind_schedule": 1}
    assert calls == {"load_configuration": 1, "_process_config_searchpath": 1, **bound}
    calls.clear()
    genlab("train", "resume=run", "trainer.num_steps=2").checked()
    assert calls["load_configuration"] == 1
    assert calls["load_run"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        # The sweep, its first job, the sweep in Hydra, and the four jobs in Hydra's launcher.
        (("seed=0,1,2,3",), 7),
        (("optimizer=adam,sgd", "seed=0,1"), 8),
    ],
)
def test_a_sweep_of_four_jobs_composes_no_job_twice_where_values_differ_alone(
    genlab: Genlab,
    calls: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    number: int,
) -> None:
    monkeypatch.setattr(jobs, "_run_and_record", lambda *_: None)
    genlab("train", "-m", *TINY, *arguments).checked()
    assert calls["load_configuration"] == number
