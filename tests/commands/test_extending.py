"""The model and the data set of docs/extending.md, as printed there, train and pass every check."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILES = re.compile(r"`(my_configs/\w+/\w+\.yaml)`[^`]*```yaml\n(.*?)```", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def own(genlab: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    del genlab  # works in a folder of its own
    page = PAGE.read_text(encoding="utf-8")
    (tmp_path / "my_package.py").write_text("\n\n".join(CODE.findall(page)))
    for name, content in FILES.findall(page):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "my_configs"


def test_the_example_is_a_model_and_a_data_set(genlab: Callable[..., Outcome], own: Path) -> None:
    settings = ["trainer=smoke", "trainer.num_steps=2", "dataset.num_images=64", "dataset.binarization=threshold"]
    words = ["model=vae", "dataset=squares", f"--config-dir={own}", "num_threads=1", "hydra.run.dir=run", *settings]
    outcome = genlab("train", *words)
    assert outcome.code == 0, outcome.errors
    assert "test/negative_elbo_nats" in (own.parent / "run" / "summary.json").read_text()
    outcome = genlab("check", "model=vae", f"--config-dir={own}", "num_threads=1")
    assert outcome.code == 0, outcome.output + outcome.errors
