"""Two processes over gloo that live for all tests and run functions together."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

NUM_PROCESSES = 2
_SECONDS = 300.0


class Pair:
    """The interface of the tests to both processes."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    def run(self, task: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return the result of a function of a module in each process; arguments and results must be picklable.

        Raises:
            RuntimeError: It raised in a process; the message contains the traceback.
        """
        for connection in self._connections:
            connection.send((task, arguments))
        results = []
        for rank, connection in enumerate(self._connections):
            assert connection.poll(_SECONDS), f"process {rank} does not answer"
            results.append(connection.recv())
        for rank, (failure, _) in enumerate(results):
            if failure is not None:
                raise RuntimeError(f"in process {rank}: {failure}")
        return [result for _, result in results]


@contextmanager
def pair_of_processes() -> Iterator[Pair]:
    """Start the processes, and end them."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    connections, processes = [], []
    for rank in range(NUM_PROCESSES):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(rank, port, theirs), daemon=True)
        process.start()
        connections.append(ours)
        processes.append(process)
    try:
        yield Pair(connections)
    finally:
        for process in processes:  # an end of their own takes seconds
            process.kill()
            process.join()


def _serve(rank: int, port: int, connection: Connection) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(NUM_PROCESSES)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    import torch

    from genlab.parallel.processes import joined

    torch.set_num_threads(1)
    with joined(torch.device("cpu")):
        while True:
            task, arguments = connection.recv()
            try:
                connection.send((None, task(*arguments)))
            except Exception:
                connection.send((traceback.format_exc(), None))
