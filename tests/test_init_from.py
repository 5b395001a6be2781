"""A run initialised with the weights of another one: compatible weights, the log of the others, and refusals."""

import hashlib
import json
import shutil
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml

import genlab as package
from genlab.errors import ConfigurationError
from genlab.models.draw.draw import DRAW
from genlab.models.gan import gan
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.run import loading
from genlab.run.loading import initial_weights
from tests.conftest import Genlab
from tests.training.conftest import TinyGAN

TINY = (
    *("train", "trainer=smoke", "num_threads=1", "quality=off", "trainer.validation_interval=0"),
    *("trainer.sample_interval=0", "trainer.test_at_end=false", "dataset.size=8"),
)
GAN = ("model=cgan", "model.generator.channels=2", "model.discriminator.channels=2")


def test_capabilities_make_no_family() -> None:
    families = [loading._family(kind.__new__(kind)) for kind in (DRAW, gan.GAN, PixelCNN)]
    assert all(families)
    assert not any(one & other for one, other in combinations(families, 2))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_begins_with_the_weights_of_another_as_far_as_they_fit(
    genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other classes: the layers that take the label begin anew; all others are those of the named run."""
    monkeypatch.chdir(tmp_path)
    added, first = "technique=[historical_averaging]", Path("outputs/first")
    assert genlab(*TINY, *GAN, added, "trainer.num_steps=2", f"hydra.run.dir={first}").code == 0
    before = digests(first)
    line = ("init_from=first", "dataset.classes=[0,1,2]", "trainer.num_steps=0", "seed=7", "name=second")
    assert genlab(*TINY, *GAN, added, *line).code == 0
    assert digests(first) == before, "nothing of it is touched"

    (second,) = Path("outputs").rglob("second")
    source, begun = (package.load(folder, checkpoint="last").state_dict() for folder in (first, second))
    labelled = {"generator.project.weight", "discriminator.network.layers.0.weight"}
    for name in (name for name in begun if not name.startswith("techniques.") and name not in labelled):
        assert torch.equal(begun[name], source[name]), name
    assert source["techniques.historical_averaging.num_seen"].any()
    assert not begun["techniques.historical_averaging.num_seen"].any(), "a count of the other training"

    origin = json.loads((second / "environment.json").read_text())["init_from"]
    assert origin["run"] == yaml.safe_load((second / "config.yaml").read_text())["init_from"] == str(first.absolute())
    assert (origin["checkpoint"], origin["step"], origin["weights"]) == ("last.safetensors", 2, "averaged")
    assert {line.split()[0] for line in origin["not_fitting"]} == labelled
    log = (second / "train.log").read_text()
    assert all(f"{name} (float32 [" in log for name in labelled)

    shutil.rmtree(second / "checkpoints")  # as if it was killed before the first
    assert "was at step" not in genlab("train", f"resume={second}").output
    shutil.rmtree(second / "checkpoints")
    assert genlab("train", "resume=first", "trainer.num_steps=3").code == 0
    outcome = genlab("train", f"resume={second}")
    assert "init_from was at step 2 when the run in this folder began, and is at step 3" in outcome.output

    with pytest.raises(ConfigurationError, match=r"of the family of TinyGAN, got .*, a run of GAN"):
        initial_weights(first, TinyGAN(), device=torch.device("cpu"))
