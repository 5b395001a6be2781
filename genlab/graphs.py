"""Recording and replay of device work: one launch instead of thousands.

A replay repeats the kernels of the recording over the same memory. The recording must neither read a value on the host
nor depend on one that changes: what changes lies in tensors that are filled before a replay.
"""

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

_T = TypeVar("_T")


class CudaGraphs:
    """CUDA graphs on one stream, with one pool of memory, which are replayed in the order of their recording.

    The default generator of the device is registered with each: a replay draws what the same work would draw, from the
    seed and the offset that the generator has then.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._has_recorded = False

    def warm_up(self, work: Callable[[], _T]) -> _T:
        """Run the work on the stream of the recordings, before they begin: libraries initialise at first use."""
        surrounding = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(surrounding)
        try:
            with torch.cuda.stream(self._stream):
                return work()
        finally:
            surrounding.wait_stream(self._stream)

    def find_wait(self, work: Callable[[], _T]) -> tuple[_T, str | None]:
        """Run the work, and return the first place at which the host waits for the device; None if it never does."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self.warm_up(work)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        waits = [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
        return result, f"{waits[0].filename}:{waits[0].lineno} waits for the device" if waits else None

    def record(self, work: Callable[[], _T]) -> tuple[_T, Callable[[], None]]:
        """Record the work on its own stream without executing it; other threads may use the device meanwhile.

        Returns:
            The outputs of the work, whose tensors are filled by each replay, and the replay.

        Raises:
            RuntimeError: The work cannot be recorded.
        """
        # A recording cannot ask for what the allocator keeps of the warm-up. torch.cuda.graph would empty its cache
        # each time: more than a row of pixels takes.
        if not self._has_recorded:
            torch.cuda.empty_cache()
            self._has_recorded = True
        # Device memory that Python's garbage collector frees meanwhile would invalidate the recording.
        collects = gc.isenabled()
        gc.disable()
        try:
            graph = torch.cuda.CUDAGraph()
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
            with torch.cuda.stream(self._stream):
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    result = work()
                except BaseException:
                    with suppress(RuntimeError):  # that the recording is invalid, by the error itself
                        graph.capture_end()
                    raise
                graph.capture_end()
        finally:
            if collects:
                gc.enable()
        return result, graph.replay
