"""The cell against torch's own, and the one-product gradient against autograd's."""

import pytest
import torch
from torch import Tensor, nn

from genlab.nn.recurrent import LSTMCell, Unrolled, update_cell


def test_cell_is_that_of_torch() -> None:
    ours, theirs = LSTMCell(num_inputs=3, num_units=4, forget_bias=0.7), nn.LSTMCell(3, 4)
    with torch.no_grad():
        gates_in, gates_forget, gates_out, candidate = ours.weight.chunk(4)
        weight = torch.cat((gates_in, gates_forget, candidate, gates_out))
        theirs.weight_ih.copy_(weight[:, :3])
        theirs.weight_hh.copy_(weight[:, 3:])
        theirs.bias_ih.zero_()
        theirs.bias_hh.zero_()
        theirs.bias_hh[4:8] = 0.7
    inputs, hidden, cell = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 4)
    gates = nn.functional.linear(torch.cat((inputs, hidden), 1), ours.weight, ours.bias)
    torch.testing.assert_close(update_cell(gates, cell), theirs(inputs, (hidden, cell)))


def test_weights_begin_within_the_bound_of_torchs_cell() -> None:
    """One over the root of the units, and not of the inputs."""
    cell = LSTMCell(num_inputs=4, num_units=100, forget_bias=1.0)
    assert 0.099 < cell.weight.abs().max() <= 0.1
    assert cell.bias.view(4, 100).unique(dim=1).flatten().tolist() == [0, 1, 0, 0]


def test_cell_state_keeps_its_precision_when_the_gates_come_in_bfloat16() -> None:
    hidden, cell = update_cell(torch.randn(2, 12).bfloat16(), torch.randn(2, 3))
    assert hidden.dtype == cell.dtype == torch.float32


def loop(weight: Tensor, bias: Tensor, *, unrolled: bool) -> Tensor:
    state = torch.linspace(-1, 1, 6, dtype=weight.dtype).view(2, 3)
    shared = Unrolled(weight, bias, num_steps=4, batch_size=2)
    for step_bias in shared.biases:
        if unrolled:
            shared.record(state)
            state = torch.tanh(torch.addmm(step_bias, state, shared.weight.t()))
        else:
            state = torch.tanh(torch.addmm(bias, state, weight.t()))
    return state.square().sum()


@pytest.mark.parametrize("bias_shape", [(3,), (2, 3)])
def test_gradients_of_all_steps_in_one_product_are_those_of_autograd(bias_shape: tuple[int, ...]) -> None:
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(bias_shape, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(loop(weight, bias, unrolled=False), (weight, bias))
    torch.testing.assert_close(torch.autograd.grad(loop(weight, bias, unrolled=True), (weight, bias)), expected)


def test_nothing_is_recorded_without_gradients() -> None:
    weight, bias = torch.randn(3, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    with torch.no_grad():
        shared = Unrolled(weight, bias, num_steps=2, batch_size=2)
    assert shared.biases[0] is bias
    frozen = Unrolled(weight.detach(), bias, num_steps=2, batch_size=2)
    assert frozen.biases[0] is bias
