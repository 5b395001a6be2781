"""The files of docs/extending.md and docs/logging.md, as printed there, do what the pages say."""

import re
from pathlib import Path

import pytest

from tests.conftest import Genlab

PAGES = [Path(__file__).parents[2] / "docs" / name for name in ("extending.md", "logging.md")]
FILES = re.compile(r"`(my_configs/\w+/\w+\.yaml)`[^`]*```yaml\n(.*?)```", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def own(genlab: Genlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    del genlab  # works in a folder of its own
    page = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    (tmp_path / "my_package.py").write_text("\n\n".join(CODE.findall(page)))
    for name, content in FILES.findall(page):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "my_configs"


def test_the_files_of_the_pages_work_together(genlab: Genlab, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ["trainer=smoke", "trainer.num_steps=2", "dataset.num_images=64", "num_threads=1", f"--config-dir={own}"]
    binary = ["model=vae", "dataset=squares", "dataset.binarization=threshold", "observer=[brightness]"]
    genlab("train", *binary, "logger=[csv]", "observer.brightness.interval=1", "hydra.run.dir=vae", *tiny).checked()
    run = own.parent / "vae"
    assert "test/negative_elbo_nats" in (run / "summary.json").read_text()
    assert "2,samples/brightness,0." in (run / "scalars.csv").read_text()
    monkeypatch.setenv("GENLAB_ALLOW", "my_package")
    measured = ["measure=[brightness_gap]", "num_generated=64", "num_threads=1"]
    genlab("evaluate", "run=vae", *measured, f"--config-dir={own}").checked()
    assert "baseline_real_brightness_gap" in (run / "evaluation.json").read_text()
    genlab("train", "model=dcgan", "technique=[random_brightness]", "hydra.run.dir=gan", *tiny[:2], *tiny[3:]).checked()
    outcome = genlab(
        "train", "model=dcgan", "technique=[random_brightness]", "dataset.binarization=threshold", *tiny[3:]
    )
    assert (outcome.code, "random_brightness" in outcome.errors) == (2, True)


def test_the_model_of_the_page_passes_every_check(genlab: Genlab, own: Path) -> None:
    outcome = genlab("check", "model=vae", f"--config-dir={own}", "num_threads=1")
    assert outcome.code == 0, outcome.output + outcome.errors
