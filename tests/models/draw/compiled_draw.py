"""Compiled against eager glimpses, six in two calls of one function.

``python -m tests.models.draw.compiled_draw READ_SIZE``, a number or None.
"""

import sys

import torch
from torch._dynamo.utils import counters

from tests.models.tiny import make_batch, make_draw


def main(read_size: int | None) -> None:
    torch.manual_seed(0)
    model = make_draw(read_size=read_size, num_glimpses=6)
    batch = make_batch(model.spec, 4)

    def measure() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        torch.manual_seed(5)
        loss = model.loss(batch).value
        return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))

    expected = measure()
    for module in model.compilable():
        module.compile()
    torch.testing.assert_close(measure(), expected, rtol=1e-4, atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 1, f"the first glimpses are compiled apart: {graphs} graphs"


if __name__ == "__main__":
    main(None if sys.argv[1] == "None" else int(sys.argv[1]))
