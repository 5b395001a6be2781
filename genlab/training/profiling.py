"""A trace of a few early steps, for TensorBoard's profiler and for Perfetto."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

# The first steps allocate and, when asked to, compile; they would drown what every later step does.
SKIPPED_STEPS = 8
TRACED_STEPS = 4


@contextmanager
def trace_early_steps(run_folder: Path, device: torch.device) -> Iterator[profile]:
    """Profile steps 9 to 12 into ``RUN/profile``; call ``step()`` on the result after each training step."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(
        activities=activities,
        schedule=schedule(skip_first=SKIPPED_STEPS, wait=0, warmup=1, active=TRACED_STEPS, repeat=1),
        on_trace_ready=tensorboard_trace_handler(str(run_folder / "profile")),
        record_shapes=True,
    ) as profiler:
        yield profiler
