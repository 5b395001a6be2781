"""PixelCNN++ as its public port to torch writes it: the baseline of its training step.

Weight normalisation is torch's own, maps lie channel by channel, 1x1 layers are a `Linear` between two permutations,
the first layers' outputs are shifted, and the loss is the paper's, with the density in place of small probabilities.
That port (pclucas14/pixel-cnn-pp) also drops out whole maps, and writes its sums of exponentials by hand.
It must stay as it is: ratios are against it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from genlab.models.pixelcnn.plus_plus_network import TwoStreamNetwork
from genlab.nn.shifted import WeightNormConv2d, WeightNormUpsample2d


def concat_elu(x: Tensor) -> Tensor:
    return F.elu(torch.cat([x, -x], 1))


class NetworkInNetwork(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = weight_norm(nn.Linear(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        return self.layer(x.view(-1, x.shape[3])).view(*x.shape[:3], -1).permute(0, 3, 1, 2)


class ShiftedConv2d(nn.Module):
    """Padded above, and on both sides (down) or to the left (right).

    Args:
        sides: Zero columns to the left and to the right.
        shift: Rows and columns by which the output is moved.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        sides: tuple[int, int],
        *,
        stride: int = 1,
        shift: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((*sides, size[0] - 1, 0))
        self.layer = weight_norm(nn.Conv2d(in_channels, out_channels, size, stride))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.pad(x))
        down, right = self.shift
        if down or right:
            x = F.pad(x[:, :, : x.shape[2] - down, : x.shape[3] - right], (right, 0, down, 0))
        return x


class Upsample(nn.Module):
    def __init__(self, filters: int, num_columns: int) -> None:
        super().__init__()
        self.first = num_columns - 2
        layer = nn.ConvTranspose2d(filters, filters, (2, num_columns), 2, output_padding=1)
        self.layer = weight_norm(layer, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y[:, :, : 2 * x.shape[2], self.first : self.first + 2 * x.shape[3]]


def down(in_channels: int, out_channels: int, **options: int) -> ShiftedConv2d:
    return ShiftedConv2d(in_channels, out_channels, (2, 3), (1, 1), **options)


def down_right(in_channels: int, out_channels: int, **options: int) -> ShiftedConv2d:
    return ShiftedConv2d(in_channels, out_channels, (2, 2), (1, 0), **options)


class GatedResnet(nn.Module):
    def __init__(self, filters: int, *, is_vertical: bool, num_skips: int) -> None:
        super().__init__()
        shape = down if is_vertical else down_right
        self.first = shape(2 * filters, filters)
        self.skip = NetworkInNetwork(2 * num_skips * filters, filters) if num_skips else None
        self.second = shape(2 * filters, 2 * filters)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        y = self.first(concat_elu(x))
        if skip is not None:
            y = y + self.skip(concat_elu(skip))
        a, b = self.second(concat_elu(y)).chunk(2, 1)
        return x + a * torch.sigmoid(b)


class PlainPixelCNNPP(nn.Module):
    """One channel, no classes, no dropout; the layers of a network of ours, with its weights.

    Args:
        ours: The network.
        blocks_down: Its blocks at each scale.
    """

    def __init__(self, ours: TwoStreamNetwork, blocks_down: list[int]) -> None:
        super().__init__()
        f = ours.u_input.bias.shape[0]
        blocks_up = [blocks_down[-1], *(number + 1 for number in reversed(blocks_down[:-1]))]

        def stream(numbers: list[int], *, is_vertical: bool, num_skips: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.ModuleList(GatedResnet(f, is_vertical=is_vertical, num_skips=num_skips) for _ in range(number))
                for number in numbers
            )

        # In the order in which ours registers its own.
        self.u_init = ShiftedConv2d(2, f, (2, 3), (1, 1), shift=(1, 0))
        self.ul_init = nn.ModuleList(
            [ShiftedConv2d(2, f, (1, 3), (1, 1), shift=(1, 0)), ShiftedConv2d(2, f, (2, 1), (0, 0), shift=(0, 1))]
        )
        self.u_down = stream(blocks_down, is_vertical=True, num_skips=0)
        self.ul_down = stream(blocks_down, is_vertical=False, num_skips=1)
        self.u_downsize = nn.ModuleList(down(f, f, stride=2) for _ in blocks_down[1:])
        self.ul_downsize = nn.ModuleList(down_right(f, f, stride=2) for _ in blocks_down[1:])
        self.u_up = stream(blocks_up, is_vertical=True, num_skips=1)
        self.ul_up = stream(blocks_up, is_vertical=False, num_skips=2)
        self.u_upsize = nn.ModuleList(Upsample(f, 3) for _ in blocks_down[1:])
        self.ul_upsize = nn.ModuleList(Upsample(f, 2) for _ in blocks_down[1:])
        self.output = NetworkInNetwork(f, ours.output.bias.shape[0])
        sources = [m for m in ours.modules() if isinstance(m, WeightNormConv2d | WeightNormUpsample2d)]
        targets = [m.layer for m in self.modules() if isinstance(m, NetworkInNetwork | ShiftedConv2d | Upsample)]
        with torch.no_grad():
            for source, target in zip(sources, targets, strict=True):
                gain, direction = target.parametrizations.weight.original0, target.parametrizations.weight.original1
                gain.copy_(source.gain.view_as(gain))
                direction.copy_(source.direction.view_as(direction))
                target.bias.copy_(source.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        us, uls = [self.u_init(x)], [self.ul_init[0](x) + self.ul_init[1](x)]
        for scale, (u_blocks, ul_blocks) in enumerate(zip(self.u_down, self.ul_down, strict=True)):
            if scale:
                us.append(self.u_downsize[scale - 1](us[-1]))
                uls.append(self.ul_downsize[scale - 1](uls[-1]))
            for u_block, ul_block in zip(u_blocks, ul_blocks, strict=True):
                us.append(u_block(us[-1]))
                uls.append(ul_block(uls[-1], us[-1]))
        u, ul = us.pop(), uls.pop()
        for step, (u_blocks, ul_blocks) in enumerate(zip(self.u_up, self.ul_up, strict=True)):
            if step:
                u, ul = self.u_upsize[step - 1](u), self.ul_upsize[step - 1](ul)
            for u_block, ul_block in zip(u_blocks, ul_blocks, strict=True):
                u = u_block(u, us.pop())
                ul = ul_block(ul, torch.cat((u, uls.pop()), 1))
        return self.output(F.elu(ul))

    def loss(self, levels: Tensor, num_levels: int) -> Tensor:
        """Return nats per image."""
        x = 2 * levels / (num_levels - 1) - 1
        raw = self(x).permute(0, 2, 3, 1)
        logits, means, log_scales = raw.chunk(3, 3)
        log_scales = log_scales.clamp(min=-7.0)
        x = x.permute(0, 2, 3, 1)  # (B, H, W, 1)
        half_bin = 1 / (num_levels - 1)
        centred, inverse_scales = x - means, torch.exp(-log_scales)
        upper, lower = inverse_scales * (centred + half_bin), inverse_scales * (centred - half_bin)
        middle = inverse_scales * centred
        difference = torch.sigmoid(upper) - torch.sigmoid(lower)
        density = middle - log_scales - 2 * F.softplus(middle) + math.log(2 * half_bin)
        inner = torch.where(difference > 1e-5, torch.log(difference.clamp(min=1e-12)), density)
        inner = torch.where(x > 0.999, -F.softplus(lower), inner)
        log_probs = torch.where(x < -0.999, upper - F.softplus(upper), inner)
        return -(log_probs + F.log_softmax(logits, 3)).logsumexp(3).sum() / len(levels)
