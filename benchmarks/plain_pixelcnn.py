"""The network and the sampler of the usual tutorial, ported plainly: the baseline of the PixelCNN benchmarks.

Its masks are written into the weights at every forward pass, no row is cut, and a sample takes one full pass of the
network per pixel. It must stay as it is: ratios are against it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.nn.masked import BatchNorm
from genlab.types import ImageSpec

DOCUMENT_NETWORK = {
    "num_blocks": 15,
    "stream_channels": 256,
    "block_channels": 128,
    "input_kernel": 7,
    "block_kernel": 3,
    "reduces": True,
    "head_channels": [128, 128],
    "normalization": BatchNorm,
    "dropout": 0.0,
    "position_bias": False,
}


class PlainMaskedConv2d(nn.Conv2d):
    """Multiplies the mask into its weight in place, as the tutorial does."""

    def __init__(self, mask_type: str, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        centre = kernel_size // 2
        mask = torch.zeros(1, 1, kernel_size, kernel_size)
        mask[:, :, :centre] = 1
        mask[:, :, centre, : centre + (mask_type == "B")] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(x)


class PlainBlock(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(2 * h, h, 1),
            nn.BatchNorm2d(h),
            nn.ReLU(),
            PlainMaskedConv2d("B", h, h, 3),
            nn.BatchNorm2d(h),
            nn.ReLU(),
            nn.Conv2d(h, 2 * h, 1),
            nn.BatchNorm2d(2 * h),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PlainPixelCNN(nn.Module):
    """15 blocks of h = 128 on one channel of 256 levels."""

    def __init__(self, num_blocks: int = 15, h: int = 128, num_levels: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            PlainMaskedConv2d("A", 1, 2 * h, 7),
            nn.BatchNorm2d(2 * h),
            *(PlainBlock(h) for _ in range(num_blocks)),
            nn.ReLU(),
            PlainMaskedConv2d("B", 2 * h, h, 1),
            nn.ReLU(),
            PlainMaskedConv2d("B", h, h, 1),
            nn.ReLU(),
            nn.Conv2d(h, num_levels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    @torch.no_grad()
    def draw_pixel(self, images: Tensor, row: int, column: int) -> None:
        """One of the 784 steps of the tutorial's sampler."""
        probabilities = F.softmax(self(images)[:, :, row, column], dim=1)
        images[:, :, row, column] = torch.multinomial(probabilities, 1).float() / 255


def same_networks(seed: int = 0) -> tuple[PlainPixelCNN, PixelCNN]:
    """Return the tutorial's network and ours with the same weights and batch statistics that are not trivial."""
    torch.manual_seed(seed)
    plain = PlainPixelCNN()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    spec = ImageSpec(channels=1, height=28, width=28, num_levels=256, num_classes=0)
    ours = PixelCNN(spec=spec, **DOCUMENT_NETWORK)
    copy_parameters(plain, ours)
    return plain.eval(), ours.eval()


def copy_parameters(plain: nn.Module, ours: nn.Module) -> None:
    """Both lists of layers have the same order; masked entries of ours are irrelevant and are copied as they are."""
    sources = [m for m in plain.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    targets = [m for m in ours.modules() if hasattr(m, "weight") and m.weight is not None]
    for source, target in zip(sources, targets, strict=True):
        target.weight.data.copy_(source.weight.data)
        target.bias.data.copy_(source.bias.data)
        if isinstance(source, nn.BatchNorm2d):
            target.running_mean.copy_(source.running_mean)
            target.running_var.copy_(source.running_var)
