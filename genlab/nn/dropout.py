"""Dropout with masks that are cheap to draw on the CPU."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LEVELS = 1 << 16
"""Values of the 16 random bits behind an element of a mask."""


class Dropout(nn.Dropout):
    """Zero elements at random in training, and scale the others so that the mean stays.

    On the CPU an element takes 16 random bits, where :class:`torch.nn.Dropout` takes a random number of 24 to 53: the
    probability is rounded to a multiple of 1 / 65,536, and a compiled network draws the masks of an eager one.

    Args:
        p: Probability of a zero.
    """

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        num_dropped = round(self.p * _LEVELS)
        if x.device.type != "cpu" or not self.training or num_dropped in (0, _LEVELS):
            y: Tensor = super().forward(x)
            return y
        is_channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        shape = x.permute(0, 2, 3, 1).shape if is_channels_last else x.shape
        kept = (_opaque_kept if torch.compiler.is_compiling() else _kept)(x.numel(), num_dropped).view(shape)
        if is_channels_last:
            kept = kept.permute(0, 3, 1, 2)
        return x * kept.to(x.dtype).mul_(_LEVELS / (_LEVELS - num_dropped))


def _kept(num_elements: int, num_dropped: int) -> Tensor:
    """Return a mask in which num_dropped of 65,536 elements are False, on average."""
    words = torch.empty((num_elements + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[:num_elements] >= num_dropped - _LEVELS // 2


# Inductor would draw the bits anew, with slower numbers of its own, and compare 16-bit integers one by one. The tag
# says that equal calls draw different masks.
_opaque_kept = torch.library.custom_op(
    "genlab::kept", _kept, mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
_opaque_kept.register_fake(lambda num_elements, _: torch.empty(num_elements, dtype=torch.bool))
