"""The cases: each gives rows as it goes, so that one that is cut short keeps what it has found.

A row of the table ``agreement`` has a value, the rule for it and whether it holds; the other tables hold figures.
"""

import contextlib
import copy
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.measuring import count_launches, median_ms, peak_memory, relative_error, synchronize
from benchmarks.gpu.subjects import (
    Subject,
    build_on,
    gradients_of,
    step,
    trainer_of,
    weights_of,
)
from benchmarks.recorded_graph import RecordedGraphs
from genlab.checks.autoregressive import decode, draw_with_full_passes
from genlab.checks.training import differences
from genlab.cli import main
from genlab.graphs import CudaGraphs
from genlab.models.base import evaluation_mode
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.sampler import draw_symbols
from genlab.run.checkpoint import LAST, PREVIOUS, CheckpointFolder
from genlab.training.randomness import generator_for
from genlab.types import UNLABELLED, Batch

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the cases: for a GPU, or for a rehearsal of seconds on a CPU."""

    networks: dict[str, Subject]
    sample_batches: tuple[int, ...] = (1, 16, 64, 1024)
    agreement_batch: int = 16
    repeats: int = 50
    seconds: float = 2.0
    matrix_side: int = 8192
    copy_mb: int = 2048
    num_resumed_steps: int = 12
    runs: tuple[tuple[str, ...], ...]
    compiled: tuple[str, ...] = ("draw_10", "draw_64", "pixelcnn", "gated", "pixelcnn_pp", "dcgan")


_PAPER_DRAW = ("model.num_glimpses=64", "model.latent_size=100", "model.read_size=2")
FULL = Sizes(
    runs=(
        *(("model=draw",), ("model=gated_pixelcnn",), ("model=pixelcnn_pp",)),
        ("model=dcgan", "optimizer=rmsprop", "recipe=none"),
        *(("model=wgan_gp", "trainer.on_non_finite=skip"), ("model=semi_supervised_gan",), ("model=infogan",)),
    ),
    networks={
        "draw_10": Subject(overrides=("model=draw",), binarization="stochastic"),
        "draw_64": Subject(overrides=("model=draw", *_PAPER_DRAW), binarization="stochastic"),
        "pixelcnn": Subject(overrides=("model=pixelcnn_document", "trainer.batch_size=16")),
        "gated": Subject(overrides=("model=gated_pixelcnn", "trainer.batch_size=64")),
        "pixelcnn_pp": Subject(overrides=("model=pixelcnn_pp", "trainer.batch_size=64")),
        "dcgan": Subject(overrides=("model=dcgan", "trainer.batch_size=128"), channels=3, side=32),
    },
)
_TINY_TRAINER = ("trainer.batch_size=4", "trainer.num_initialization_images=8")
TINY = Sizes(
    runs=(("model=draw", "model.num_glimpses=2", "model.num_units=8", "dataset.size=8"),),
    networks={
        "draw_10": Subject(
            overrides=("model=draw", "model.num_glimpses=2", "model.num_units=8", *_TINY_TRAINER),
            side=6,
            binarization="stochastic",
        ),
        "draw_64": Subject(
            overrides=("model=draw", "model.num_glimpses=3", "model.num_units=8", "model.read_size=2", *_TINY_TRAINER),
            side=6,
            binarization="stochastic",
        ),
        "pixelcnn": Subject(
            overrides=(
                *("model=pixelcnn_document", "model.num_blocks=1", "model.stream_channels=8"),
                *("model.block_channels=4", "model.head_channels=[4]", *_TINY_TRAINER),
            ),
            side=4,
            num_levels=4,
        ),
        "gated": Subject(
            overrides=(
                *("model=gated_pixelcnn", "model.num_layers=2", "model.channels=4"),
                *("model.head_channels=[4]", *_TINY_TRAINER),
            ),
            side=4,
            num_levels=4,
        ),
        "pixelcnn_pp": Subject(
            overrides=(
                *("model=pixelcnn_pp", "model.filters=4", "model.blocks_down=[1,1]"),
                *("model.num_components=2", *_TINY_TRAINER),
            ),
            side=4,
        ),
        "dcgan": Subject(
            overrides=("model=dcgan", "model.generator.channels=4", "model.discriminator.channels=4", *_TINY_TRAINER),
            channels=3,
            side=8,
        ),
    },
    sample_batches=(2,),
    agreement_batch=2,
    repeats=3,
    seconds=0.1,
    matrix_side=64,
    copy_mb=1,
    num_resumed_steps=8,
    compiled=(),
)


def agreement(what: str, value: float, most: float) -> Row:
    return {
        "table": "agreement",
        "what": what,
        "value": float(f"{value:.3g}"),
        "rule": f"at most {most:.3g}",
        "holds": value <= most,
    }


# ---- the machine


def machine(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """The two ceilings of the device: bytes that a copy moves, operations of a matrix product."""
    count = sizes.copy_mb * 1_000_000 // 4
    source, target = torch.rand(count, device=device), torch.empty(count, device=device)
    milliseconds = median_ms(lambda: target.copy_(source), device, repeats=20)
    yield {"table": "machine", "what": "copy, GB/s read and written", "value": round(8 * count / milliseconds / 1e6)}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(sizes.matrix_side, sizes.matrix_side, device=device, dtype=dtype) for _ in range(2))
        milliseconds = median_ms(lambda a=left, b=right: a @ b, device, repeats=10)  # type: ignore[misc]
        teraflops = round(2 * sizes.matrix_side**3 / milliseconds / 1e9, 2)
        yield {"table": "machine", "what": f"matrix product {str(dtype)[6:]}, TFLOP/s", "value": teraflops}


# ---- training


def training(name: str) -> Callable[[Sizes, torch.device], Iterator[Row]]:
    def case(sizes: Sizes, device: torch.device) -> Iterator[Row]:
        subject = sizes.networks[name]
        yield from _same_steps(name, subject, device)
        eager = None
        for variant, choices in (
            ("eager", {"captured": False}),
            ("captured", {"captured": True}),
            ("captured bfloat16", {"captured": True, "overrides": ("trainer.precision=bfloat16",)}),
        ):
            row = _timed_steps(subject, device, sizes, **choices)
            eager = eager or row["ms"]
            yield {"table": "training", "model": name, "variant": variant, **row, "ratio": _ratio(eager, row["ms"])}
        if name not in sizes.compiled:
            return
        yield from _same_gradients_compiled(name, subject, device)
        for variant, overrides in (
            ("captured compiled", ()),
            ("captured compiled bfloat16", ("trainer.precision=bfloat16",)),
        ):
            if overrides and not name.startswith("draw"):
                continue  # a compilation of its own takes longer than what it would show
            row = _timed_steps(subject, device, sizes, captured=True, compiled=True, overrides=overrides)
            yield {"table": "training", "model": name, "variant": variant, **row, "ratio": _ratio(eager, row["ms"])}

    return case


def _ratio(base: float | None, value: float) -> float:
    return round((base or value) / value, 2)


def _same_steps(name: str, subject: Subject, device: torch.device) -> Iterator[Row]:
    """Captured steps against eager ones from the same weights: metrics of each step, weights after the last."""
    eager, captured = (trainer_of(subject, device, captured=is_captured) for is_captured in (False, True))
    worst = 0.0
    for _ in range(8):
        ours, theirs = step(captured), step(eager)
        worst = max(worst, relative_error(list(ours.values()), [theirs[key] for key in ours]))
    assert captured._capture is not None
    yield agreement(f"{name}: metrics of 8 steps, captured against eager", worst, 1e-5)
    error = relative_error(weights_of(captured), weights_of(eager))
    yield agreement(f"{name}: weights after 8 steps, captured against eager", error, 1e-5)
    again = trainer_of(subject, device, captured=True)
    for _ in range(8):
        step(again)
    error = relative_error(weights_of(again), weights_of(captured))
    yield agreement(f"{name}: weights after 8 steps, captured twice", error, 0.0)
    on_host = trainer_of(subject, torch.device("cpu"), captured=False)
    error = relative_error(_evaluated(eager, on_host), _evaluated(on_host, on_host))
    yield agreement(f"{name}: measures without noise, {device.type} against the CPU", error, 1e-4)


def _evaluated(trainer: Any, source: Any) -> list[Tensor]:
    """Return a model's outputs for a batch of another trainer, with that trainer's weights and noise from the CPU."""
    trainer.model.load_state_dict(source.model.state_dict())
    batch = source._stream.batch(0)
    moved = Batch(images=batch.images.to(trainer.device), labels=batch.labels.to(trainer.device))
    noise = generator_for(0, "noise", device=torch.device("cpu"))
    with evaluation_mode(trainer.model), torch.no_grad():
        if isinstance(trainer.model, AutoregressiveModel):
            return [trainer.model.evaluate(moved)["nll_nats"]]
        model = copy.copy(trainer.model)
        if hasattr(model, "_noise"):
            drawn = torch.randn(model.num_glimpses, len(moved.images), model.latent_size, generator=noise)
            model.__dict__["_noise"] = lambda *_: drawn.to(trainer.device)
            return [model.evaluate(moved)["nll_upper_bound_nats"]]
        inputs = torch.randn(4, model.latent.size, generator=noise).to(trainer.device)
        images = model.generator(inputs)
        return [images, model.discriminator(images, images.new_empty(4, 0)).outputs]


def _same_gradients_compiled(name: str, subject: Subject, device: torch.device) -> Iterator[Row]:
    """Gradients of compiled networks may be no further from those in float64 than twice the eager ones.

    Rounding grows with each batch normalisation: through the 45 of a PixelCNN eager gradients are 0.5 % off as well.
    """
    eager, exact = (trainer_of(subject, device, captured=False) for _ in range(2))
    exact.model.double()
    compiled = trainer_of(subject, device, captured=False, compiled=True)
    start = time.monotonic()
    gradients = gradients_of(compiled)
    synchronize(device)
    seconds = round(time.monotonic() - start, 1)
    reference = gradients_of(exact)
    most = max(2 * relative_error(gradients_of(eager), reference), 1e-4)
    yield agreement(f"{name}: gradients, compiled against float64", relative_error(gradients, reference), most)
    yield {"table": "machine", "what": f"{name}: compilation, s", "value": seconds}


def _timed_steps(subject: Subject, device: torch.device, sizes: Sizes, **choices: Any) -> Row:
    with peak_memory(device) as memory:
        trainer = trainer_of(subject, device, **choices)
        for _ in range(5):  # three as written, then the recording
            step(trainer)
        milliseconds = median_ms(lambda: step(trainer), device, repeats=sizes.repeats, seconds=sizes.seconds)
    return {"ms": round(milliseconds, 3), **count_launches(lambda: step(trainer), device), **memory}


# ---- sampling


def sampling(name: str) -> Callable[[Sizes, torch.device], Iterator[Row]]:
    def case(sizes: Sizes, device: torch.device) -> Iterator[Row]:
        model = build_on(sizes.networks[name], device)
        assert isinstance(model, AutoregressiveModel)
        _shake(model)
        model.eval()
        yield from _same_pictures(name, model, sizes, device)
        for batch_size in sizes.sample_batches:
            full = _full_pass_seconds(model, batch_size, device, sizes)
            yield _sampling_row(name, batch_size, "full passes", full, full)
            for sampler, draw in _samplers(model, device).items():
                seconds = median_ms(lambda d=draw, n=batch_size: d(n), device, repeats=3, seconds=2.0) / 1e3  # type: ignore[misc]
                yield _sampling_row(name, batch_size, sampler, seconds, full)

    return case


def _samplers(model: AutoregressiveModel, device: torch.device) -> dict[str, Callable[[int], Tensor]]:
    """Ways of drawing so many images, all from the same uniforms."""

    @torch.no_grad()
    def draw(num: int, graphs: CudaGraphs | None) -> Tensor:
        uniforms = model.uniforms(num, generator=torch.Generator().manual_seed(7))
        decoder = model.decoder(torch.full((num,), UNLABELLED, device=device), dtype=torch.float32)
        return model.to_images(draw_symbols(decoder, uniforms, graphs=graphs))

    def sample(num: int) -> Tensor:
        return model.sample(num, generator=torch.Generator().manual_seed(7))

    ways: dict[str, Callable[[int], Tensor]] = {"incremental": lambda num: draw(num, None)}
    # On CUDA the way of `genlab sample` is the captured one.
    return ways | {"captured": sample if device.type == "cuda" else lambda num: draw(num, RecordedGraphs())}


def _sampling_row(name: str, batch_size: int, sampler: str, seconds: float, full: float) -> Row:
    return {
        "table": "sampling",
        "model": name,
        "batch": batch_size,
        "sampler": sampler,
        "seconds": round(seconds, 4),
        "images_per_second": round(batch_size / seconds, 2),
        "ratio": _ratio(full, seconds),
    }


@torch.no_grad()
def _shake(model: torch.nn.Module) -> None:
    """Weights and statistics that matter, the same on every device: fresh networks predict next to nothing."""
    noise = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise).to(parameter.device))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=noise))


@torch.no_grad()
def _same_pictures(name: str, model: AutoregressiveModel, sizes: Sizes, device: torch.device) -> Iterator[Row]:
    count = sizes.agreement_batch
    uniforms = model.uniforms(count, generator=torch.Generator().manual_seed(7))
    full = draw_with_full_passes(model, uniforms, torch.full((count,), UNLABELLED, device=device))
    drawn = {sampler: draw(count) for sampler, draw in _samplers(model, device).items()}
    # One symbol whose uniform lies within the rounding of two samplers changes all that follow it.
    for (sampler, images), (other, others), most in (
        (("incremental", drawn["incremental"]), ("full passes", full), 0.25),
        (("captured", drawn["captured"]), ("incremental", drawn["incremental"]), 0.0),
    ):
        different = float((images != others).flatten(1).any(1).float().mean())
        yield agreement(f"{name}: share of {count} images that differ, {sampler} against {other}", different, most)
    symbols, labels = model.to_symbols(full[:2]), torch.full((2,), UNLABELLED, device=device)
    incremental = decode(model, symbols, labels, torch.float32)
    error = relative_error([incremental], [model.logits(symbols, labels)])
    yield agreement(f"{name}: logits, incremental against full pass", error, 1e-5)
    levels = len(full.unique())
    yield {"table": "machine", "what": f"{name}: levels in {count} images", "value": levels}


@torch.no_grad()
def _full_pass_seconds(model: AutoregressiveModel, batch_size: int, device: torch.device, sizes: Sizes) -> float:
    """One full pass for each symbol, from the time of one."""
    shape = (batch_size, model.num_symbols, *model.grid)
    symbols = torch.zeros(shape, dtype=torch.long, device=device)
    labels = torch.full((batch_size,), UNLABELLED, device=device)
    one = median_ms(lambda: model.logits(symbols, labels), device, repeats=5, seconds=1.0)
    return one / 1e3 * model.num_symbols * model.grid[0] * model.grid[1]


# ---- whole runs


def resume(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """A run against one that was cut in its middle, bit by bit: captured, with batch statistics and averages."""
    num_steps = sizes.num_resumed_steps
    for name in ("draw_10", "dcgan"):
        with tempfile.TemporaryDirectory() as folder:
            whole, cut = Path(folder) / "whole", Path(folder) / "cut"
            # Without validations: a new best checkpoint would be saved between the two that are compared.
            overrides = (
                f"trainer.checkpoint_interval={num_steps // 2}",
                "trainer.log_interval=2",
                "trainer.validation_interval=0",
            )
            for path in (whole, cut):
                path.mkdir()
            trainer = _run_trainer(sizes.networks[name], device, whole, num_steps, overrides)
            trainer.fit(resume=False)
            shutil.copytree(whole, cut, dirs_exist_ok=True)
            (cut / "checkpoints" / PREVIOUS).replace(cut / "checkpoints" / LAST)
            _run_trainer(sizes.networks[name], device, cut, num_steps, overrides).fit(resume=True)
            host = torch.device("cpu")
            states = [CheckpointFolder(path / "checkpoints").load(LAST, device=host) for path in (whole, cut)]
            different = differences(*states)
        yield agreement(f"{name}: values of the checkpoint that differ after resuming", len(different), 0)


def _run_trainer(
    subject: Subject, device: torch.device, folder: Path, num_steps: int, overrides: tuple[str, ...]
) -> Any:
    trainer = trainer_of(subject, device, captured=True, overrides=overrides)
    trainer.run_folder = folder
    trainer.checkpoints = CheckpointFolder(folder / "checkpoints")
    trainer.last_step = num_steps
    return trainer


def runs(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """The commands as a user types them: 20 steps with validation, pictures and a test, then further pictures."""
    with tempfile.TemporaryDirectory() as name:
        for index, words in enumerate(sizes.runs):
            folder = Path(name) / str(index)
            on_device = f"device={device}"
            train = ["train", *words, "trainer=smoke", on_device, f"hydra.run.dir={folder}"]
            for command in (train, ["sample", f"run={folder}", "num_samples=16", on_device]):
                errors = io.StringIO()
                with contextlib.redirect_stderr(errors):
                    code = main(command)
                yield {
                    "table": "agreement",
                    "what": f"genlab {command[0]} {' '.join(words)}",
                    "value": code,
                    "rule": "exit code 0",
                    "holds": code == 0,
                    "note": None if code == 0 else "; ".join(errors.getvalue().strip().splitlines()[-3:]),
                }


def tests(sizes: Sizes, device: torch.device) -> Iterator[Row]:
    """The tests marked ``gpu``; on a CPU they are collected only."""
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider", *files]
    if device.type != "cuda":
        command.append("--collect-only")
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    lines = (outcome.stdout + outcome.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    yield {
        "table": "agreement",
        "what": f"pytest -m gpu: {lines[-1] if lines else 'no output'}",
        "value": outcome.returncode,
        "rule": "exit code 0",
        "holds": outcome.returncode == 0,
        "note": "; ".join(failed[:5]) or None,
    }


@dataclass(frozen=True, kw_only=True)
class Case:
    """One process of its own."""

    run: Callable[[Sizes, torch.device], Iterator[Row]]
    seconds: int
    """After which it is stopped."""


CASES: dict[str, Case] = {
    "machine": Case(run=machine, seconds=30),
    "draw_10": Case(run=training("draw_10"), seconds=90),
    "sample_pixelcnn": Case(run=sampling("pixelcnn"), seconds=60),
    "runs": Case(run=runs, seconds=90),
    "draw_64": Case(run=training("draw_64"), seconds=100),
    "resume": Case(run=resume, seconds=60),
    "tests": Case(run=tests, seconds=60),
    "dcgan": Case(run=training("dcgan"), seconds=60),
    "sample_pixelcnn_pp": Case(run=sampling("pixelcnn_pp"), seconds=60),
    "sample_gated": Case(run=sampling("gated"), seconds=45),
    "pixelcnn": Case(run=training("pixelcnn"), seconds=60),
    "gated": Case(run=training("gated"), seconds=60),
    "pixelcnn_pp": Case(run=training("pixelcnn_pp"), seconds=90),
}
