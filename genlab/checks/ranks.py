"""A training step on two ranks, simulated in this process: different noise, equal weights and statistics."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genlab.checks.phases import training_step, updates_of
from genlab.checks.subject import DoesNotApply, Finding, Subject, held_if
from genlab.parallel.collectives import Process, is_drawing_same, set_process
from genlab.parallel.synchronized import synchronize_layers
from genlab.training.randomness import seed_training_step
from genlab.types import Batch

_T = TypeVar("_T")

NUM_RANKS = 2
_CPU = torch.device("cpu")


class SimulatedRanks(Generic[_T]):
    """Ranks of one run as threads, one of which runs at a time until it ends or reaches a sum over all ranks.

    Each has the default generator of torch to itself.
    """

    def __init__(self, num: int = NUM_RANKS) -> None:
        self.num = num
        self._turn = threading.Condition()
        self._running = 0
        self._processes = [_SimulatedProcess(self, rank) for rank in range(num)]
        self._generator_states = [torch.default_generator.get_state()] * num
        self._waiting: dict[int, Tensor] = {}
        self._ended: set[int] = set()

    def run(self, task: Callable[[int], _T]) -> list[_T]:
        """Run a task on every rank, and return the results.

        Raises:
            RuntimeError: A rank waits for others that have ended.
            Exception: Of the rank that failed first.
        """
        results: dict[int, _T] = {}
        errors: list[Exception] = []

        def carry_out(rank: int) -> None:
            self._await_turn(rank)
            try:
                results[rank] = task(rank)
            except Exception as error:
                errors.append(error)
            self._ended.add(rank)
            self._pass_on(rank)

        threads = [threading.Thread(target=carry_out, args=(rank,), daemon=True) for rank in range(self.num)]
        state, process = torch.default_generator.get_state(), set_process(self._processes[0])
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            set_process(process)
            torch.default_generator.set_state(state)
        if errors:
            raise errors[0]
        return [results[rank] for rank in range(self.num)]

    def sum_in_place(self, rank: int, values: Tensor) -> None:
        """Sum the values of all ranks; other ranks run until they have provided theirs."""
        self._waiting[rank] = values
        if len(self._waiting) < self.num:
            self._pass_on(rank)
            self._await_turn(rank)
            if rank in self._waiting:
                raise RuntimeError(f"rank {rank} waits for others that have ended: all ranks must do the same")
            return
        total = torch.stack([self._waiting[rank].detach() for rank in range(self.num)]).sum(0)
        for waiting in self._waiting.values():
            waiting.detach().copy_(total)
        self._waiting.clear()

    def _await_turn(self, rank: int) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._running == rank)
        set_process(self._processes[rank])
        torch.default_generator.set_state(self._generator_states[rank])

    def _pass_on(self, rank: int) -> None:
        self._generator_states[rank] = torch.default_generator.get_state()
        others = ((rank + step) % self.num for step in range(1, self.num + 1))
        with self._turn:
            self._running = next((other for other in others if other not in self._ended), -1)
            self._turn.notify_all()


class _SimulatedProcess(Process):
    def __init__(self, ranks: SimulatedRanks[Any], rank: int) -> None:
        super().__init__()
        self._ranks = ranks
        self._rank = rank

    def num_processes(self) -> int:
        return self._ranks.num

    def rank(self) -> int:
        return self._rank

    def sum_in_place(self, values: Tensor) -> None:
        self._ranks.sum_in_place(self._rank, values)


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A record of the generator's state behind each random operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own: list[tuple[str, bytes]] = []
        self.num_same = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            given = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Generator)]
            state = (given[0] if given else torch.default_generator).get_state()
            if is_drawing_same():
                self.num_same += 1
            else:
                self.own.append((str(func), state.numpy().tobytes()))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The state of a rank after a training step."""

    draws: _Draws
    is_numpy_used: bool
    state: dict[str, Tensor]


def _steps(subject: Subject) -> list[_Step]:
    batch = subject.batch(NUM_RANKS * len(subject.batch().images))

    def step(rank: int) -> _Step:
        model = subject.fresh()
        synchronize_layers(model)
        updates = updates_of(model)
        seed_training_step(subject.seed, 0, _CPU)
        before = _numpy_state()
        with _Draws() as draws:
            training_step(
                model, updates, Batch(images=batch.images[rank::NUM_RANKS], labels=batch.labels[rank::NUM_RANKS])
            )
        return _Step(draws=draws, is_numpy_used=_numpy_state() != before, state=model.state_dict())

    return SimulatedRanks[_Step]().run(step)


def _numpy_state() -> tuple[object, ...]:
    state: Any = np.random.get_state()
    return (state[1].tobytes(), *state[2:])


def noise_differs(subject: Subject) -> Finding:
    """Check that no draw is equal on two ranks, except explicitly (:mod:`genlab.parallel.collectives`)."""
    steps = _steps(subject)
    if any(step.is_numpy_used for step in steps):
        return held_if(False, "the model draws from NumPy's generator, which is the same on all ranks")
    first, second = (step.draws for step in steps)
    if not first.own and not first.num_same:
        raise DoesNotApply("it draws no noise in training")
    same = [name for (name, state), (_, other) in zip(first.own, second.own, strict=False) if state == other]
    seen = f"{len(first.own)} draws of each rank, {first.num_same} that are equal on request"
    return held_if(not same, f"{seen}; {len(same)} equal on both ranks, first {same[0]}" if same else seen)


def ranks_stay_equal(subject: Subject) -> Finding:
    """Check that two ranks with different images and noise have equal weights and statistics after a step."""
    first, second = (step.state for step in _steps(subject))
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    seen = f"{len(first)} tensors after a step"
    if different:
        return held_if(False, f"{seen}, {len(different)} differ, first {different[0]}: see genlab.parallel.collectives")
    return held_if(True, f"{seen}, equal on {NUM_RANKS} ranks")
