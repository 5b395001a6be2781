"""The long short-term memory cell, with all gates in one matrix product."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LSTMCell(nn.Module):
    """Hochreiter and Schmidhuber's cell with forget gates (Gers et al. 2000), without peepholes.

    Dimensions: B batch, I inputs, U units, G = 4 U gates. The rows of the weight are the input, forget and
    output gates, then the candidate; its columns the inputs, then the hidden state.

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

    def forward(
        self, inputs: Float[Tensor, "B I"], hidden: Float[Tensor, "B U"], cell: Float[Tensor, "B U"]
    ) -> tuple[Float[Tensor, "B U"], Float[Tensor, "B U"]]:
        """The next hidden state and cell state."""
        gates = torch.nn.functional.linear(torch.cat((inputs, hidden), 1), self.weight, self.bias)
        return update_cell(gates, cell)


def update_cell(
    gates: Float[Tensor, "B G"], cell: Float[Tensor, "B U"]
) -> tuple[Float[Tensor, "B U"], Float[Tensor, "B U"]]:
    """The next hidden state and cell state from the pre-activations of the gates.

    The state is kept in the cell's own precision: sums over many steps do not survive bfloat16.
    """
    num_units = cell.shape[1]
    squashed, candidate = gates.to(cell.dtype).split_with_sizes([3 * num_units, num_units], 1)
    input_gate, forget_gate, output_gate = torch.sigmoid(squashed).chunk(3, 1)
    cell = torch.addcmul(forget_gate * cell, input_gate, torch.tanh(candidate))
    return output_gate * torch.tanh(cell), cell
