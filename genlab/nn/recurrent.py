"""Long short-term memory with all gates in one matrix product, and the weight's gradient of all steps in one more.

Dimensions: T steps, B batch, I inputs, U units, J = I + U inputs of the gates with the hidden state, G = 4 U gates.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import tanh


class LSTMCell(nn.Module):
    """Parameters of an LSTM cell with forget gates (Gers et al. 2000), without peepholes.

    The rows of the weight are the input, forget and output gates, then the candidate; its columns the inputs, then the
    hidden state. The caller multiplies (:class:`Unrolled`) and calls :func:`update_cell`.

    Args:
        num_inputs: I.
        num_units: U.
        forget_bias: Initial bias of the forget gate; above 0 the cell starts by remembering (Jozefowicz et al. 2015).
    """

    def __init__(self, *, num_inputs: int, num_units: int, forget_bias: float) -> None:
        super().__init__()
        bound = num_units**-0.5
        self.weight = nn.Parameter(torch.empty(4 * num_units, num_inputs + num_units).uniform_(-bound, bound))
        bias = torch.zeros(4 * num_units)
        bias[num_units : 2 * num_units] = forget_bias
        self.bias = nn.Parameter(bias)


def update_cell(
    gates: Float[Tensor, "B G"], cell: Float[Tensor, "B U"]
) -> tuple[Float[Tensor, "B U"], Float[Tensor, "B U"]]:
    """Return the next hidden state h' and cell state c' from the pre-activations of the gates i, f, o and candidate g.

    c' = sigmoid(f) c + sigmoid(i) tanh(g) and h' = sigmoid(o) tanh(c').

    The state is kept in the cell's own precision: sums over many steps do not survive bfloat16.
    """
    num_units = cell.shape[1]
    squashed, candidate = gates.to(cell.dtype).split_with_sizes([3 * num_units, num_units], 1)
    input_gate, forget_gate, output_gate = torch.sigmoid(squashed).chunk(3, 1)
    cell = torch.addcmul(forget_gate * cell, input_gate, tanh(candidate))
    return output_gate * tanh(cell), cell


class Unrolled:
    """A weight and bias applied at T steps of a loop, whose gradient is one matrix product over all steps.

    Autograd alone would form and add up a gradient as large as the weight at every step. Here the loop uses the weight
    as a constant and every step adds its own copy of the bias; the gradients of those copies are all that the
    gradients of weight and bias need, once each step has handed in what the weight multiplied::

        unrolled = Unrolled(weight, bias, num_steps=T, batch_size=B)
        for bias_of_step in unrolled.biases:
            output = torch.addmm(bias_of_step, inputs, unrolled.weight.t())
            unrolled.record(inputs)

    Args:
        weight: (G, J).
        bias: (G,), or (B, G) for one that differs between examples.
        num_steps: T.
        batch_size: B.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, num_steps: int, batch_size: int) -> None:
        device = weight.device.type
        # Autocast would convert the weight again at every step.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        self.weight = weight.detach().to(dtype)
        self._inputs: list[Tensor] = []
        self._is_recording = torch.is_grad_enabled() and weight.requires_grad
        if self._is_recording:
            copies: Tensor = _GradientOfAllSteps.apply(weight, bias, self._inputs, (num_steps, batch_size), dtype)
            self.biases = copies.unbind(0)
        else:
            self.biases = (bias,) * num_steps

    def record(self, inputs: Float[Tensor, "B J"]) -> None:
        """Record the input of the weight at this step."""
        if self._is_recording:
            self._inputs.append(inputs.detach())


class _GradientOfAllSteps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, inputs: list[Tensor], steps: tuple[int, int], dtype: torch.dtype
    ) -> Tensor:
        ctx.inputs = inputs
        ctx.dtypes = weight.dtype, bias.dtype
        ctx.shares_bias = bias.dim() == 1
        # In the type of the product, which autocast would convert it to at every step, and its gradient back.
        return bias.to(dtype).expand(*steps, -1)  # (T, B, G)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        gradient = gradients[0]
        rows = gradient.flatten(0, 1)  # (T B, G)
        inputs = torch.cat(ctx.inputs).to(rows.dtype)  # (T B, J)
        weight_dtype, bias_dtype = ctx.dtypes
        # Not (G, T B) by (T B, J): on the CPU that takes up to half as long again, unless J is a multiple of 8.
        of_weight = (inputs.t() @ rows).t().to(weight_dtype)  # (G, J)
        of_bias = gradient.sum((0, 1) if ctx.shares_bias else 0, dtype=bias_dtype)
        return of_weight, of_bias, None, None, None
