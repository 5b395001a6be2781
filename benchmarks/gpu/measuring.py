"""Times, launches and memory of work on a device; on the CPU the same calls give the CPU's own figures."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_ms(work: Callable[[], object], device: torch.device, *, repeats: int, seconds: float = 3.0) -> float:
    """Milliseconds of the work, the median of up to `repeats`, of which it starts none after so many seconds."""
    work()
    synchronize(device)
    times: list[float] = []
    until = time.monotonic() + seconds
    while len(times) < repeats and (len(times) < 3 or time.monotonic() < until):
        times.append(_timed_on_device(work) if device.type == "cuda" else _timed_on_host(work))
    return statistics.median(times)


def _timed_on_device(work: Callable[[], object]) -> float:
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last))


def _timed_on_host(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def count_launches(work: Callable[[], object], device: torch.device) -> dict[str, int | None]:
    """Count the launches of the host for the work, and the kernels of the device (on the CPU, the operations)."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    try:
        with profile(activities=activities, acc_events=True) as profiler:
            work()
            synchronize(device)
        events: list[Any] = list(profiler.events())
    except RuntimeError:  # a machine may forbid it
        return {"launches": None, "kernels": None}
    if device.type != "cuda":
        return {"launches": len(events), "kernels": None}
    return {
        "launches": sum(event.name.startswith(_LAUNCHES) for event in events),
        "kernels": sum(event.device_type == DeviceType.CUDA for event in events),
    }


@contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, float | None]]:
    """Largest allocation on the device within, in MB; of the CPU unknown."""
    found: dict[str, float | None] = {"peak_mb": None}
    if device.type == "cuda":
        gc.collect()  # a trainer and its observers refer to each other
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["peak_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6, 1)


def relative_error(values: list[Tensor], references: list[Tensor]) -> float:
    """Norm of the difference over the norm of the reference, all tensors as one vector in float64."""
    difference = sum(
        float((value.detach().double().cpu() - reference.detach().double().cpu()).square().sum())
        for value, reference in zip(values, references, strict=True)
    )
    norm = sum(float(reference.detach().double().square().sum()) for reference in references)
    return float((difference / norm) ** 0.5) if norm else float(difference)
