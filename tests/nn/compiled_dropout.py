"""Compiled against eager dropout in a network with two equal layers of it: ``python -m tests.nn.compiled_dropout``."""

import torch
from torch import Tensor, nn

from genlab.nn.dropout import Dropout


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Dropout(0.5), Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x.tanh()), self.second(x.tanh())


def main() -> None:
    network, x = Twice(), torch.randn(3, 4, 5, 6).requires_grad_()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        images = x.contiguous(memory_format=memory_format)

        def measure(images: Tensor = images) -> tuple[Tensor, Tensor, Tensor]:
            torch.manual_seed(5)
            first, second = network(images)
            (gradient,) = torch.autograd.grad((first + 2 * second).sum(), x)
            return first, second, gradient

        torch._dynamo.reset()
        expected = measure()
        assert not torch.equal(expected[0] == 0, expected[1] == 0)
        network.compile()
        torch.testing.assert_close(measure(), expected)
        network._compiled_call_impl = None


if __name__ == "__main__":
    main()
