"""The gated PixelCNN as public programs write it: the baseline of its training step.

Masks are written into the weights at every forward pass, maps lie channel by channel, the gate splits them, and the
loss is the cross-entropy of whole logits. The vertical kernels are square with their lower rows masked, as in the usual
tutorial, or as tall as what they see, with padding on both sides and a crop afterwards, as in the better programs;
those crop the horizontal kernels too, which neither this port nor ours does.
It must stay as it is: ratios are against it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.pixelcnn.gated_network import GatedNetwork


class PlainMaskedConv2d(nn.Conv2d):
    """Multiplies the mask into its weight in place.

    Args:
        num_rows: Kernel rows that act, from the top.
        num_columns: Entries that act in the last of them, from the left; None for all.
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: tuple[int, int], *, num_rows: int, num_columns: int | None
    ) -> None:
        super().__init__(in_channels, out_channels, size, padding=(size[0] // 2, size[1] // 2))
        mask = torch.zeros(1, 1, *size)
        mask[:, :, :num_rows] = 1
        if num_columns is not None:
            mask[:, :, num_rows - 1, num_columns:] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(x)


class CroppedConv2d(nn.Conv2d):
    """Sees rows above and cuts off the output that would see others."""

    def __init__(self, in_channels: int, out_channels: int, num_rows: int, width: int, *, shift: int) -> None:
        super().__init__(in_channels, out_channels, (num_rows, width), padding=(num_rows - 1 + shift, width // 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, : x.shape[2]]


class PlainGatedLayer(nn.Module):
    def __init__(self, in_channels: int, p: int, size: int, *, is_first: bool, crops: bool) -> None:
        super().__init__()
        self.is_first = is_first
        rows = size // 2 + (not is_first)
        self.vertical: nn.Module
        if crops:
            self.vertical = CroppedConv2d(in_channels, 2 * p, rows, size, shift=int(is_first))
        else:
            self.vertical = PlainMaskedConv2d(in_channels, 2 * p, (size, size), num_rows=rows, num_columns=None)
        self.vertical_to_horizontal = nn.Conv2d(2 * p, 2 * p, 1)
        self.horizontal = PlainMaskedConv2d(
            in_channels, 2 * p, (1, size), num_rows=1, num_columns=size // 2 + (not is_first)
        )
        self.output = nn.Conv2d(p, p, 1)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        v_features = self.vertical(v)
        v_signal, v_opening = v_features.chunk(2, 1)
        h_features = self.horizontal(h) + self.vertical_to_horizontal(v_features)
        h_signal, h_opening = h_features.chunk(2, 1)
        out = self.output(torch.tanh(h_signal) * torch.sigmoid(h_opening))
        return torch.tanh(v_signal) * torch.sigmoid(v_opening), out if self.is_first else out + h


class PlainGatedPixelCNN(nn.Module):
    """One channel, no classes; the layers and the biases per position of a network of ours, with its weights.

    Args:
        ours: The network.
        crops: True for vertical kernels that are as tall as what they see.
    """

    def __init__(self, ours: GatedNetwork, *, crops: bool) -> None:
        super().__init__()
        layers = list(ours.layers)
        p = layers[0].output.weight.shape[0]
        self.layers = nn.ModuleList(
            PlainGatedLayer(
                layer.horizontal.weight.shape[1], p, layer.horizontal.weight.shape[3], is_first=not index, crops=crops
            )
            for index, layer in enumerate(layers)
        )
        self.head = nn.ModuleList(nn.Conv2d(*reversed(layer.weight.shape[:2]), 1) for layer in ours.head)
        self.stream_position = nn.Parameter(ours.stream_position.detach().clone())
        self.row_bias = nn.Parameter(ours.logit_position.rows.detach().clone())
        self.column_bias = nn.Parameter(ours.logit_position.columns.detach().clone())
        sources = [m for m in ours.modules() if isinstance(getattr(m, "bias", None), Tensor)]
        targets = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        with torch.no_grad():
            for source, target in zip(sources, targets, strict=True):
                target.weight.zero_()
                target.weight[:, :, : source.weight.shape[2]].copy_(source.weight)
                target.bias.copy_(source.bias)

    def forward(self, x: Tensor) -> Tensor:
        v = h = x
        for index, layer in enumerate(self.layers):
            v, h = layer(v, h)
            if index == 0:
                h = h + self.stream_position
        for layer in self.head:
            h = layer(F.relu(h))
        return h + self.row_bias[:, :, None] + self.column_bias[:, None]

    def loss(self, levels: Tensor, num_levels: int) -> Tensor:
        """Return nats per image."""
        logits = self(levels / (num_levels - 1))
        return F.cross_entropy(logits, levels[:, 0]) * levels[0].numel()
