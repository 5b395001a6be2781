"""A model of the user's own declares its measures, and every table uses only these declarations."""

import csv
import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.cli import main
from genlab.measures import NOT_DECLARED
from tests.commands.conftest import TINY
from tests.conftest import Genlab

Runs = tuple[Path, Path]
MODEL = """
import torch
import torch.nn.functional as F
from torch import nn

from genlab.measures import Measure, negative_log_likelihood
from genlab.models.base import GenerativeModel
from genlab.types import Loss, Phase


class VAE(GenerativeModel):
    \"\"\"A variational autoencoder of binary images, in one linear layer a side.\"\"\"

    selection_measure = "negative_elbo_nats"
    measures = {
        "negative_elbo_nats": negative_log_likelihood("upper bound"),
        "on_share": Measure(unit="1", kind="exact", direction="neither"),
    }

    def __init__(self, *, spec, latent_size: int) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.height, spec.width)
        num_pixels = spec.channels * spec.height * spec.width
        self.encoder = nn.Linear(num_pixels, 2 * latent_size)
        self.decoder = nn.Linear(latent_size, num_pixels)
        self.latent_size = latent_size
        self.num_classes = spec.num_classes

    def bound(self, images):
        x = images.flatten(1)
        mean, log_std = self.encoder(x).chunk(2, 1)
        logits = self.decoder(mean + log_std.exp() * torch.randn_like(mean))
        kl = (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum(1)
        return kl + F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)

    def phases(self):
        return (Phase(name="model", modules=(self,), loss=self.loss),)

    def loss(self, batch):
        value = self.bound(batch.images).mean()
        return Loss(value=value, metrics={"negative_elbo_nats": value.detach()})

    @torch.no_grad()
    def evaluate(self, batch):
        bound = self.bound(batch.images)
        # The last one bears the name of an exact likelihood, and is not declared to be any.
        on_share = batch.images.flatten(1).mean(1)
        return {"negative_elbo_nats": bound, "on_share": on_share, "nll_of_something_nats": bound}

    def sample(self, num_samples, *, labels=None, generator=None):
        latents = torch.randn(num_samples, self.latent_size, generator=generator)
        images = torch.sigmoid(self.decoder(latents)).view(num_samples, *self.shape)
        return images if labels is None else torch.ones_like(images) * (labels / 10).view(-1, 1, 1, 1)
"""


@pytest.fixture(name="runs", scope="module")
def one_run_of_it_and_one_of_draw(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Iterator[Runs]:
    place = tmp_path_factory.mktemp("own")
    (place / "my_vae.py").write_text(MODEL)
    (place / "my" / "model").mkdir(parents=True)
    (place / "my" / "model" / "vae.yaml").write_text("# a VAE\n_target_: my_vae.VAE\nlatent_size: 4\n")
    arguments = [word for word in TINY if not word.startswith("model.")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        patch.setenv("GENLAB_ALLOW", "my_vae")
        run = place / "run"
        assert main(["train", "--config-dir", str(place / "my"), "model=vae", *arguments, f"hydra.run.dir={run}"]) == 0
        yield run, trained_run


@pytest.fixture(autouse=True)
def trusted(genlab: Genlab, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_ALLOW", "my_vae")


def test_the_ledger_and_the_card_say_what_is_declared_and_what_is_not(genlab: Genlab, runs: Runs) -> None:
    own, _ = runs
    outcome = genlab("evaluate", f"run={own}", "num_threads=1").checked()
    lines = {line.split()[0]: line for line in outcome.output.splitlines() if line.strip()}
    assert "baseline_uniform_nats" in lines  # beside what is declared a likelihood
    assert "nats/image    upper bound" in lines["negative_elbo_nats"]
    assert f"{NOT_DECLARED}  {NOT_DECLARED}" in lines["nll_of_something_nats"]
    entries = {entry["name"]: entry for entry in json.loads((own / "evaluation.json").read_text())["measures"]}
    told = {name: (entry["kind"], entry["direction"], entry["quantity"]) for name, entry in entries.items()}
    assert told == {
        "negative_elbo_nats": ("upper bound", "lower", "nll_nats"),
        "on_share": ("exact", "neither", "on_share"),
        "nll_of_something_nats": (NOT_DECLARED, NOT_DECLARED, "nll_of_something_nats"),
    }
    outcome = genlab("export", f"run={own}", "out=given")
    assert (outcome.code, "it needs my_vae, which the export does not contain" in outcome.output) == (0, True)
    assert "install the Python package `my_vae` and set `GENLAB_ALLOW=my_vae`." in Path("given/README.md").read_text()
    (row,) = [line for line in Path("given/README.md").read_text().splitlines() if "| nll_of_something_nats |" in line]
    assert row.count(NOT_DECLARED) == 2


def test_a_class_is_drawn_by_a_model_whose_pictures_have_no_choice_of_one(genlab: Genlab, runs: Runs) -> None:
    genlab("sample", f"run={runs[0]}", "label=3", "num_samples=4", "out=drawn").checked()
    (picture,) = Path("drawn").glob("*.png")
    assert round(0.3 * 255) in np.unique(np.asarray(Image.open(picture)))
    outcome = genlab("sample", f"run={runs[1]}", "label=3")
    assert (outcome.code, "label must be null for DRAW, which takes no class, got" in outcome.errors) == (2, True)


@pytest.mark.slow
def test_a_comparison_ranks_what_is_declared_and_says_what_is_not(genlab: Genlab, runs: Runs) -> None:
    assert genlab("evaluate", f"run={runs[1]}", "num_threads=1").code == 0  # others measured it on fewer images
    arguments = ("compare", *map(str, runs), "--html", "page.html", "--json", "all.json")
    outcome = genlab(*arguments).checked()
    text = outcome.output
    assert "nll_nats (lower)" in text  # the bounds of both models in one column
    assert f"nll_of_something_nats ({NOT_DECLARED})" in text
    assert "#1 not ranked: not declared: the `measures` of the model lack" in text
    left_out = next(line for line in text.splitlines() if line.startswith("left out, because they do not order models"))
    assert {"on_share", "kl_nats"} <= set(left_out.replace(",", "").split())
    assert f"nll_of_something_nats ({NOT_DECLARED})" in Path("page.html").read_text()
    own, draw = json.loads(Path("all.json").read_text())["runs"]
    ranks = sorted(run["measures"]["nll_nats"]["rank"] for run in (own, draw))
    assert ranks == [1, 2]
    assert own["measures"]["validation/nll_nats"]["name"] == "validation/negative_elbo_nats"
    assert own["measures"]["validation/nll_of_something_nats"]["direction"] == NOT_DECLARED
    (first, _) = csv.DictReader(io.StringIO(genlab("compare", *map(str, runs), "--csv").output))
    assert (first["nll_of_something_nats:kind"], first["nll_of_something_nats:rank"]) == (NOT_DECLARED, "")


def test_the_likelihood_of_given_images_is_what_is_declared_as_such(genlab: Genlab, runs: Runs, tmp_path: Path) -> None:
    own, _ = runs
    levels = torch.randint(0, 2, (8, 8), generator=torch.Generator().manual_seed(0)).mul(255).byte()
    (tmp_path / "pictures").mkdir()
    Image.fromarray(levels.numpy()).save(tmp_path / "pictures" / "a.png")
    genlab("evaluate", f"run={own}", "images=pictures", "num_threads=1").checked()
    record = json.loads((own / "likelihoods.json").read_text())
    assert [(measure["name"], measure["kind"]) for measure in record["measures"]] == [
        ("negative_elbo_nats", "upper bound")
    ]


def test_the_pictures_of_a_model_that_only_samples_are_its_samples(genlab: Genlab, runs: Runs, tmp_path: Path) -> None:
    own, _ = runs
    genlab("sample", f"run={own}", "num_samples=4", "out=drawn").checked()
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["samples.png"]
    assert list((own / "samples").glob("step_*.png"))


@pytest.mark.parametrize("allowed", ["my_vae", "my_vae, my_model"])  # a prefix of this command alone, perhaps
def test_the_commands_to_try_next_name_what_they_need(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    (tmp_path / "parts" / "my_model.py").parent.mkdir()
    (tmp_path / "parts" / "my_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path / "parts")  # as PYTHONPATH does, but in this process
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'parts'}:/with a space")
    monkeypatch.setenv("GENLAB_ALLOW", allowed)
    node = ("model=draw", "~model", "+model={_target_: my_model.VAE, latent_size: 4}")
    arguments = [word for word in TINY if not word.startswith("model.")]
    outcome = genlab("train", *node, *arguments, "name=mine", "trainer.max_minutes=1e-9").checked()
    lines = [shlex.split(line) for line in outcome.output.partition("next:\n")[2].splitlines()]
    needed = [f"PYTHONPATH={tmp_path / 'parts'}:/with a space", "GENLAB_ALLOW=my_vae,my_model"]
    assert [line[-2] for line in lines[:-1]] == ["train", "sample", "evaluate"]
    assert all(line[:2] == needed for line in lines[:-1])
    assert [Path(word).name for word in lines[-1]] == ["genlab", "board"]  # which builds nothing


def test_its_own_exception_is_reported_as_such_and_leaves_its_traceback(
    genlab: Genlab, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_bad.py").write_text(
        "from my_vae import VAE\n\n\nclass Bad(VAE):\n    def loss(self, batch):\n        raise KeyError('oops')\n"
    )
    (tmp_path / "my" / "model").mkdir(parents=True)
    (tmp_path / "my" / "model" / "bad.yaml").write_text("_target_: my_bad.Bad\nlatent_size: 4\n")
    arguments = [word for word in TINY if not word.startswith("model.")]
    outcome = genlab("train", "--config-dir", "my", "model=bad", *arguments, "name=bad")
    log = "outputs/digits-bad/bad/train.log"
    message = (
        f"KeyError: 'oops'; raised in my_bad.py:6 (Bad.loss), which is not part of genlab; the traceback is in {log}"
    )
    assert (outcome.code, outcome.errors) == (1, f"genlab: error: {message}\n")
    assert "KeyError: 'oops'\n" in (tmp_path / log).read_text()
    assert "in loss" in (tmp_path / log).read_text()
