"""Run folders made of the few files that a comparison reads."""

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from genlab.measures import negative_log_likelihood

RunMaker = Callable[..., Path]

_HIGHER = ("precision", "recall", "parzen")
_NEITHER = ("score", "kl")


def entry(name: str, value: float | list[float], **changes: Any) -> dict[str, Any]:
    """Return a measure as `genlab evaluate` writes it."""
    return {
        "name": name,
        "value": value,
        "standard_error": 0.1,
        "unit": "nats/image",
        "kind": "exact",
        "direction": "higher" if name.startswith(_HIGHER) else "neither" if name.startswith(_NEITHER) else "lower",
        "quantity": "nll_nats" if name == "nll_upper_bound_nats" else name,
        "split": "test",
        "num_examples": 10000,
        "num_importance_samples": None,
        "weights": "trained",
        "seed": 0,
        "dataset": "binarized_mnist",
        "binarization": "fixed",
        "dataset_fingerprint": "f" * 64,
        "num_generated": None,
        "features": None,
        "protocol": None,
    } | changes


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    def make(
        name: str,
        *,
        measures: list[dict[str, Any]] | None = None,
        summary: dict[str, Any] | None = None,
        configuration: dict[str, Any] | None = None,
        overrides: tuple[str, ...] = ("model=draw",),
        choices: dict[str, str] | None = None,
        curve: list[float | None] | None = None,
        has_samples: bool = False,
    ) -> Path:
        folder = tmp_path / "outputs" / name
        (folder / ".hydra").mkdir(parents=True)
        told = {"status": "finished", "reason": None, "step": 100, "seconds": 60.0, "num_parameters": 1234}
        kinds = {"nll_nats": "exact", "nll_upper_bound_nats": "upper bound"}
        told["measures"] = {tag: asdict(negative_log_likelihood(kind)) for tag, kind in kinds.items()}
        (folder / "summary.json").write_text(json.dumps(told | (summary or {})))
        nodes = {
            "seed": 0,
            "dataset": {"_target_": "genlab.data.mnist.binarized_mnist", "binarization": "fixed"},
            "optimizer": {"default": {"_target_": "torch.optim.Adam", "lr": 1e-3}},
            "trainer": {"num_steps": 100, "ema_decay": None, "validation_images": None},
            "model": {"_target_": "genlab.models.draw.draw.DRAW", "num_glimpses": 8},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(nodes | (configuration or {})))
        runtime = {"choices": {"model": "draw", "dataset": "binarized_mnist", "experiment": None} | (choices or {})}
        hydra = {"hydra": {"runtime": runtime, "overrides": {"task": list(overrides)}}}
        (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
        environment = {
            "commands": [shlex.join(["genlab", "train", *overrides])],
            "git": {"commit": "0123456789abcdef", "is_dirty": False},
            "device": "cpu",
            "cpu": "A Processor",
            "num_threads": 1,
        }
        (folder / "environment.json").write_text(json.dumps(environment))
        if measures is not None:
            record = {"checkpoint": "best.safetensors", "step": 90, "measures": measures}
            (folder / "evaluation.json").write_text(json.dumps(record))
        lines = [
            {"step": 10 * index, "seconds": 1.0, "train/model/nll_nats": value, "speed/images_per_second": 50.0 + index}
            for index, value in enumerate(curve or [3.0, 2.0, 1.0])
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if has_samples:
            (folder / "samples").mkdir()
            for step, grey in ((50, 0), (100, 200)):
                Image.new("L", (700, 600), grey).save(folder / "samples" / f"step_{step:08d}.png")
        return folder

    return make


HEADER = """# @package _global_
# A model (Somebody 2015, arXiv:1502.04623).
# command:    genlab train experiment=x num_threads=1,
#             then genlab evaluate run=RUN
# cost:       20 minutes
# measures:   nll_upper_bound_nats,
#             parzen_log_likelihood_nats, error
# published:  nll_upper_bound_nats = 80.0 (arXiv:1502.04623, table 2,
#             of another network)
#             parzen_log_likelihood_nats = -132 +- 1.8 (somewhere)
# ours:       docs/results.md
# differs:    in its size
# expected:   nll_upper_bound_nats = 82.5 +- 0.6 (one run)
# result:     DRAW: digits
# twin:       x_quick
defaults:
  - override /model: draw
# cost:       no longer the header
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path
