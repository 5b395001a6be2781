"""PixelCNN++: a discretised mixture of logistics, two streams of gated residual blocks, down- and up-sampling.

Paper: PixelCNN++, Salimans, Karpathy, Chen, Kingma, arXiv:1701.05517, section 2 and figure 2.

Differs from the paper:
    - The inner levels' probabilities are computed exactly in the tails, where the paper's program replaces them by
      the density (:mod:`genlab.models.pixelcnn.mixture`).
    - The first layer's input is shifted down or right before its convolutions rather than their output after them,
      so that the border has the bias as well.
    - Any number of levels, channels, scales and blocks; binary images have the two halves of each logistic.

Order: raster order of pixels; within a pixel the network is evaluated once, and channels R, G, B follow from the
mixture.

Dimensions: B batch, n images drawn together, C channels, H height, W width, F filters, M components, K levels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.functional import at_least_float32
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.mixture import (
    MixtureParameters,
    channel_log_probs,
    mixture_log_prob,
    num_mixture_parameters,
    split_mixture_parameters,
)
from genlab.models.pixelcnn.sampler import Decoder
from genlab.models.ranges import require_between, require_count
from genlab.nn.shifted import WeightNormConv2d, WeightNormUpsample2d, data_dependent_initialization
from genlab.types import Batch, ImageSpec

# Data-dependent initialisation leaves the residual branches small, so that the network starts near the identity.
RESIDUAL_SCALE = 0.1
# Means and variances over all pixels of so many images are already sharp; more only cost memory.
INITIALIZATION_IMAGES = 64


def concat_elu(x: Tensor, dim: int = 1) -> Tensor:
    """ELU of x and of -x, doubling the channels."""
    return F.elu(torch.cat((x, -x), dim))


def down_shifted(in_filters: int, out_filters: int, *, stride: int = 1, initial_scale: float = 1.0) -> WeightNormConv2d:
    """2x3: the row above and its own, a column to each side."""
    return WeightNormConv2d(in_filters, out_filters, (2, 3), padding=(1, 1), stride=stride, initial_scale=initial_scale)


def down_right_shifted(
    in_filters: int, out_filters: int, *, stride: int = 1, initial_scale: float = 1.0
) -> WeightNormConv2d:
    """2x2: the row above and its own, the column to the left and its own."""
    return WeightNormConv2d(in_filters, out_filters, (2, 2), padding=(1, 0), stride=stride, initial_scale=initial_scale)


class GatedResidualBlock(nn.Module):
    """Section 2.3: x + a * sigmoid(b), (a, b) from two convolutions, the first joined by a skip connection.

    Args:
        filters: F.
        is_vertical: Whether it belongs to the stream u (:func:`down_shifted`) or ul (:func:`down_right_shifted`).
        skip_filters: Channels of the skip input; 0 for none.
        num_classes: Rows of the class table; 0 for none.
        dropout: Between the convolutions, in training.
    """

    def __init__(self, filters: int, *, is_vertical: bool, skip_filters: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        shape = down_shifted if is_vertical else down_right_shifted
        self.first = shape(2 * filters, filters)
        self.skip = WeightNormConv2d(2 * skip_filters, filters) if skip_filters else None
        self.second = shape(2 * filters, 2 * filters, initial_scale=RESIDUAL_SCALE)
        self.classes = nn.Embedding(num_classes + 1, 2 * filters) if num_classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)
        self.dropout = nn.Dropout(dropout)

    def class_bias(self, labels: Int[Tensor, " B"]) -> Float[Tensor, "B C_out"] | None:
        """Added to (a, b); UNLABELLED is the last row."""
        if self.classes is None:
            return None
        bias: Tensor = self.classes(labels % self.classes.num_embeddings)
        return bias

    def forward(
        self, x: Float[Tensor, "B F H W"], skip: Float[Tensor, "B S H W"] | None, labels: Int[Tensor, " B"]
    ) -> Float[Tensor, "B F H W"]:
        y = self.first(concat_elu(x))
        if self.skip is not None and skip is not None:
            y = y + self.skip(concat_elu(skip))
        y = self.second(self.dropout(concat_elu(y)))  # (B, 2F, H, W)
        bias = self.class_bias(labels)
        a, b = torch.chunk(y if bias is None else y + bias[:, :, None, None], 2, 1)
        return x + a * b.sigmoid()


class TwoStreamNetwork(nn.Module):
    """Figure 2. The stream u sees all rows above; the stream ul sees, through u, these and the pixels to the left.

    Args:
        in_channels: Of the images.
        out_channels: Mixture parameters per pixel.
        filters: F.
        blocks_down: Blocks of each stream at each scale, from full resolution down.
        num_classes: Rows of the class tables; 0 for none.
        dropout: In the blocks, in training.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: int,
        blocks_down: Sequence[int],
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        in_channels += 1  # a channel of ones, by which the padding can be told from the image

        def blocks(number: int, *, is_vertical: bool, skip_filters: int) -> nn.ModuleList:
            return nn.ModuleList(
                GatedResidualBlock(
                    filters,
                    is_vertical=is_vertical,
                    skip_filters=skip_filters,
                    num_classes=num_classes,
                    dropout=dropout,
                )
                for _ in range(number)
            )

        self.u_input = WeightNormConv2d(in_channels, filters, (2, 3), padding=(1, 1))
        self.ul_input_above = WeightNormConv2d(in_channels, filters, (1, 3), padding=(1, 1))
        self.ul_input_left = WeightNormConv2d(in_channels, filters, (2, 1))
        lower = range(len(blocks_down) - 1)
        # Every block on the way up takes one output of the way down: the blocks' own and that of the layer that led
        # to the scale. The way up begins with the very last output, hence one fewer at the lowest scale.
        blocks_up = [blocks_down[-1], *(number + 1 for number in reversed(blocks_down[:-1]))]
        self.u_down = nn.ModuleList(blocks(n, is_vertical=True, skip_filters=0) for n in blocks_down)
        self.ul_down = nn.ModuleList(blocks(n, is_vertical=False, skip_filters=filters) for n in blocks_down)
        self.u_downsample = nn.ModuleList(down_shifted(filters, filters, stride=2) for _ in lower)
        self.ul_downsample = nn.ModuleList(down_right_shifted(filters, filters, stride=2) for _ in lower)
        self.u_up = nn.ModuleList(blocks(n, is_vertical=True, skip_filters=filters) for n in blocks_up)
        self.ul_up = nn.ModuleList(blocks(n, is_vertical=False, skip_filters=2 * filters) for n in blocks_up)
        self.u_upsample = nn.ModuleList(WeightNormUpsample2d(filters, filters, 3) for _ in lower)
        self.ul_upsample = nn.ModuleList(WeightNormUpsample2d(filters, filters, 2) for _ in lower)
        self.output = WeightNormConv2d(filters, out_channels, initial_scale=RESIDUAL_SCALE)

    def forward(self, x: Float[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B N H W"]:
        x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        above = F.pad(x, (0, 0, 1, -1))  # row i holds row i - 1
        left = F.pad(x, (1, -1, 0, 0))  # column j holds column j - 1
        u = self.u_input(above).contiguous(memory_format=torch.channels_last)
        ul = self.ul_input_above(above) + self.ul_input_left(left)
        ul = ul.contiguous(memory_format=torch.channels_last)
        skips = [(u, ul)]
        for scale, (u_blocks, ul_blocks) in enumerate(zip(self.u_down, self.ul_down, strict=True)):
            if scale:
                u, ul = self.u_downsample[scale - 1](u), self.ul_downsample[scale - 1](ul)
                skips.append((u, ul))
            for u_block, ul_block in zip(_modules(u_blocks), _modules(ul_blocks), strict=True):
                u = u_block(u, None, labels)
                ul = ul_block(ul, u, labels)
                skips.append((u, ul))
        # The lowest scale's last output is where the way up begins.
        u, ul = skips.pop()
        for step, (u_blocks, ul_blocks) in enumerate(zip(self.u_up, self.ul_up, strict=True)):
            if step:
                u, ul = self.u_upsample[step - 1](u), self.ul_upsample[step - 1](ul)
            for u_block, ul_block in zip(_modules(u_blocks), _modules(ul_blocks), strict=True):
                u_skip, ul_skip = skips.pop()
                u = u_block(u, u_skip, labels)
                ul = ul_block(ul, torch.cat((u, ul_skip), 1), labels)
        assert not skips
        raw: Tensor = self.output(F.elu(ul))
        return at_least_float32(raw)


def _modules(blocks: nn.Module) -> list[nn.Module]:
    return list(blocks.children())


class PixelCNNPP(AutoregressiveModel):
    """PixelCNN++, class-conditional where asked.

    Args:
        spec: The images; height and width divisible by 2 ** (number of scales - 1).
        filters: F, 160 in the paper's program.
        blocks_down: Gated residual blocks at each scale, from full resolution; three times 5 in the paper.
        num_components: Logistics in the mixture, M.
        class_conditional: Whether the class is an input; images marked UNLABELLED have a row of their own.
        dropout: In the blocks, in training; without it the paper's network overfits CIFAR-10 at once.

    Raises:
        ValueError: The images' sides do not divide, an argument is out of range, or there are no classes.
    """

    def __init__(
        self,
        *,
        spec: ImageSpec,
        filters: int,
        blocks_down: Sequence[int],
        num_components: int,
        class_conditional: bool,
        dropout: float,
    ) -> None:
        require_count("model.filters", filters)
        require_count("model.num_components", num_components)
        require_between("model.dropout", dropout, 0.0, 0.99)
        factor = 2 ** (len(blocks_down) - 1)
        if not blocks_down or spec.height % factor or spec.width % factor:
            raise ValueError(
                f"model.blocks_down has {len(blocks_down)} scales, which need a height and width divisible by "
                f"{factor}, got {spec.height}x{spec.width}: give fewer scales"
            )
        super().__init__(
            spec=spec,
            num_symbols=spec.channels,
            num_values=spec.num_levels,
            grid=(spec.height, spec.width),
            class_conditional=class_conditional,
        )
        self.network = TwoStreamNetwork(
            in_channels=spec.channels,
            out_channels=num_mixture_parameters(spec.channels, num_components),
            filters=filters,
            blocks_down=blocks_down,
            num_classes=self.num_classes,
            dropout=dropout,
        )

    def initialize(self, batch: Batch) -> None:
        """Gains and biases from a batch, arXiv:1602.07868, section 3; dropout stays on, as in training."""
        images, labels = batch.images[:INITIALIZATION_IMAGES], batch.labels[:INITIALIZATION_IMAGES]
        with data_dependent_initialization(self.network):
            self.network(2 * images.to(self.dtype) - 1, labels)

    def mixture(self, symbols: Int[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> MixtureParameters:
        """The distribution of every pixel given those before it, shapes (B, H, W, ...)."""
        raw = self.network(2 * self.to_images(symbols) - 1, labels)
        return split_mixture_parameters(raw.movedim(1, -1), self.spec.channels)

    def nll(self, symbols: Int[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Exact, nats per image; computed without the probabilities of the levels that do not occur."""
        parameters = self.mixture(symbols, labels)
        return -mixture_log_prob(parameters, symbols.movedim(1, -1), num_levels=self.num_values).flatten(1).sum(1)

    def logits(self, symbols: Int[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, "B C K H W"]:
        parameters, levels = self.mixture(symbols, labels), symbols.movedim(1, -1)
        return torch.stack(
            [
                channel_log_probs(parameters, levels, channel, num_levels=self.num_values).movedim(-1, 1)
                for channel in range(self.spec.channels)
            ],
            1,
        )

    def decoder(self, labels: Int[Tensor, " n"], *, dtype: torch.dtype) -> Decoder:
        # Here, because the decoder is written in terms of the network above.
        from genlab.models.pixelcnn.plus_plus_decoder import TwoStreamDecoder

        return TwoStreamDecoder(self.network, spec=self.spec, labels=labels, dtype=dtype)

    def compilable(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def shardable(self) -> tuple[nn.Module, ...]:
        network = self.network
        streams = (network.u_down, network.ul_down, network.u_up, network.ul_up)
        return (*(block for stream in streams for blocks in stream for block in _modules(blocks)), network)
