"""A profile of a few early steps: a trace for Perfetto, and a table of the operators."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from genlab.paths import from_here

# The first steps allocate and, when asked to, compile; they would drown what every later step does.
SKIPPED_STEPS = 8
TRACED_STEPS = 4
_NUM_OPERATORS = 40

_log = logging.getLogger(__name__)


@contextmanager
def profile_early_steps(run_folder: Path, device: torch.device) -> Iterator[profile]:
    """Profile steps 9 to 12 of this start into ``RUN/profile``; call ``step()`` after each training step."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    folder, last = run_folder / "profile", SKIPPED_STEPS + TRACED_STEPS

    def write(profiler: profile) -> None:
        if profiler.step_num < last:  # the run ended within them, and its end was traced as one
            return
        tensorboard_trace_handler(str(folder))(profiler)
        order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=_NUM_OPERATORS)
        (folder / "operators.txt").write_text(table, encoding="utf-8")
        _log.info("profile of steps %d to %d: %s", SKIPPED_STEPS + 1, last, from_here(folder))

    with profile(
        activities=activities,
        schedule=schedule(skip_first=SKIPPED_STEPS - 1, wait=0, warmup=1, active=TRACED_STEPS, repeat=1),
        on_trace_ready=write,
        record_shapes=True,
        acc_events=True,  # of the one cycle; without it torch 2.11 warns that each cycle clears those before
    ) as profiler:
        yield profiler
    if profiler.step_num < last:
        text = "trainer.profile traces steps %d to %d of a start, and this one made fewer: nothing was written"
        _log.warning(text, SKIPPED_STEPS + 1, last)
