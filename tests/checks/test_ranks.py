"""Simulated ranks sum, gather and draw as processes do; what is drawn is each rank's own unless it asks otherwise."""

import pytest
import torch
from torch import Tensor

from genlab.checks.ranks import SimulatedRanks
from genlab.parallel.collectives import (
    draw_rows,
    gather_rows,
    is_first,
    mean_over_processes,
    num_processes,
    one_batch,
    rank,
    same_draws,
)
from genlab.training.randomness import seed_training_step

CPU = torch.device("cpu")


def test_sums_and_gathered_rows_have_the_derivatives_of_one_process() -> None:
    weight = torch.tensor(2.0)

    def task(number: int) -> tuple[float, list[float], float]:
        assert (rank(), num_processes(), is_first()) == (number, 2, number == 0)
        with one_batch():
            x = torch.tensor([1.0 + number], requires_grad=True)
            mean = mean_over_processes(x * weight)
            rows = gather_rows(x)
            (gradient,) = torch.autograd.grad((mean * rows).sum(), x)
            return mean.item(), rows.tolist(), gradient.item()

    ours = SimulatedRanks[tuple[float, list[float], float]](2).run(task)
    both = torch.tensor([1.0, 2.0], requires_grad=True)
    (expected,) = torch.autograd.grad(((both * weight).mean() * both).sum() * 2, both)  # the loss of each rank
    assert [(mean, rows) for mean, rows, _ in ours] == [(3.0, [1.0, 2.0])] * 2
    assert [gradient for _, _, gradient in ours] == pytest.approx(expected.tolist())
    assert num_processes() == 1


def test_a_rank_that_does_something_else_is_an_error_and_no_hang() -> None:
    def task(number: int) -> None:
        with one_batch():
            if number == 0:
                mean_over_processes(torch.zeros(1))

    with pytest.raises(RuntimeError, match="rank 0 waits for others that have ended"):
        SimulatedRanks[None](3).run(task)


def drawn(number: int) -> tuple[Tensor, ...]:
    """Own noise, equal noise, one's own rows, nested, own noise again; with a hand-over between them."""
    seed_training_step(3, 7, CPU)
    with one_batch():
        own = torch.randn_like(torch.empty(4))
        with same_draws():
            same = torch.randn(4)
        mean_over_processes(torch.zeros(1))
        rows = draw_rows(lambda num: torch.randn(num), 2)
        with same_draws():
            first = torch.rand(2)
            inner = draw_rows(lambda num: torch.rand(num), 1)
        return own, same, rows, first, inner, torch.randn(4)


def test_ranks_draw_numbers_of_their_own_unless_they_ask() -> None:
    before = torch.default_generator.get_state()
    ours, theirs = SimulatedRanks[tuple[Tensor, ...]](2).run(drawn)
    assert torch.equal(torch.default_generator.get_state(), before)
    (own, same, rows, first, inner, last), (other, again, *others) = ours, theirs
    assert not torch.equal(own, other)
    assert not torch.equal(last, others[-1])
    assert not torch.equal(own, last)
    assert torch.equal(same, again)
    assert torch.equal(first, others[1])

    # What is equal on request is what a single process draws; neither draws of one's own come between, nor nesting.
    seed_training_step(3, 7, CPU)
    assert torch.equal(torch.randn(4), same)
    assert torch.equal(torch.randn(4), torch.stack((rows, others[0]), 1).flatten())
    assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.rand(2), torch.cat((inner, others[2])))


def test_a_single_process_draws_on_as_if_nobody_had_asked() -> None:
    seed_training_step(3, 7, CPU)
    with one_batch():
        first = torch.randn(4)
        with same_draws():
            second = torch.randn(4)
    torch.manual_seed(0)
    seed_training_step(3, 7, CPU)
    assert torch.equal(torch.randn(4), first)
    assert torch.equal(torch.randn(4), second)


def test_a_step_gives_other_numbers_than_its_neighbours_on_any_rank() -> None:
    def states(_: int) -> list[bytes]:
        found = []
        for step in range(3):
            seed_training_step(3, step, CPU)
            found.append(torch.randn(4).numpy().tobytes())
        return found

    everything = [state for states_of_rank in SimulatedRanks[list[bytes]](3).run(states) for state in states_of_rank]
    assert len(set(everything)) == len(everything)
