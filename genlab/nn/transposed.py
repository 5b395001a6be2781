"""A transposed convolution that is fast on the CPU for grey images."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genlab.functional import at_least_float32


class ImageConvTranspose2d(nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d` to the channels of an image, with the same parameters and values.

    On the CPU PyTorch's kernel takes five times as long for one output channel as a matrix product from each input
    pixel to its window of the output, and the sum of the windows where they overlap, which is in float32 at least.
    With three channels the two take equally long.
    """

    def forward(
        self, x: Float[Tensor, "B C_in H W"], output_size: list[int] | None = None
    ) -> Float[Tensor, "B C_out H_out W_out"]:
        is_plain = self.groups == 1 and self.dilation == (1, 1) and output_size is None
        if self.out_channels > 1 or x.device.type != "cpu" or not is_plain:
            return super().forward(x, output_size)
        assert not isinstance(self.padding, str)  # no transposed convolution has a named padding
        num, channels, *sides = x.shape
        windows = x.permute(0, 2, 3, 1).reshape(-1, channels) @ self.weight.reshape(self.in_channels, -1)
        of_image = at_least_float32(windows).view(num, sides[0] * sides[1], windows.shape[1]).transpose(1, 2)
        height, width = (
            (side - 1) * stride - 2 * padding + kernel + extra
            for side, stride, padding, kernel, extra in zip(
                sides, self.stride, self.padding, self.kernel_size, self.output_padding, strict=True
            )
        )
        output: Tensor = F.fold(of_image, (height, width), self.kernel_size, padding=self.padding, stride=self.stride)
        return output if self.bias is None else output + self.bias[:, None, None]
