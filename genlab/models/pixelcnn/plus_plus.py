"""PixelCNN++: a discretised mixture of logistics, two streams of gated residual blocks, down- and up-sampling.

Paper: PixelCNN++, Salimans, Karpathy, Chen, Kingma, arXiv:1701.05517, section 2 and figure 2.

Differs from the paper:
    - The inner levels' probabilities are computed exactly in the tails, where the paper's program replaces them by
      the density (:mod:`genlab.models.pixelcnn.mixture`).
    - The first layer's input is shifted down or right before its convolutions rather than their output after them,
      so that the border has the bias as well.
    - Samples are levels, where the program does not round; scales below their bound still have a gradient upwards.
    - The last layer starts with a tenth of the gains that the paper's program gives it, as the residual branches do.
    - Any number of levels, channels, scales and blocks; binary images have the two halves of each logistic.

Order: raster order of pixels; within a pixel the network is evaluated once, and channels R, G, B follow from the
mixture.

Dimensions: B batch, n images drawn together, C channels, H height, W width, F filters, M components, K levels,
r rows redrawn.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genlab.models.capabilities import Decoder, SamplesIncrementally
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.mixture import (
    MixtureParameters,
    channel_log_probs,
    invert_channel_cdf,
    mixture_log_prob,
    num_mixture_parameters,
    split_mixture_parameters,
    upper_edges,
)
from genlab.models.pixelcnn.plus_plus_decoder import TwoStreamDecoder
from genlab.models.pixelcnn.plus_plus_network import TwoStreamNetwork, modules_of
from genlab.models.pixelcnn.sampler import invert_cdf
from genlab.models.ranges import require_between, require_count
from genlab.nn.shifted import data_dependent_initialization
from genlab.types import Batch, CompilationCost, ImageSpec

# Means and variances over all pixels of so many images are already sharp; more only cost memory.
INITIALIZATION_IMAGES = 64


class PixelCNNPP(AutoregressiveModel, SamplesIncrementally):
    """PixelCNN++, optionally class-conditional.

    Args:
        spec: The images; height and width divisible by 2 ** (number of scales - 1).
        filters: F; 192 in the paper (section 3.1), 160 in its program.
        blocks_down: Gated residual blocks at each scale, from full resolution; three times 5 in the paper.
        num_components: Logistics in the mixture, M.
        class_conditional: True if the class is an input; images marked UNLABELLED have a row of their own.
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
        self._size = sum(blocks_down) * filters * spec.height * spec.width
        self.network = TwoStreamNetwork(
            in_channels=spec.channels,
            out_channels=num_mixture_parameters(spec.channels, num_components),
            filters=filters,
            blocks_down=blocks_down,
            num_classes=self.num_classes,
            dropout=dropout,
        )

    def initialize(self, batch: Batch) -> None:
        """Set gains and biases from a batch, arXiv:1602.07868, section 3; dropout stays on, as in training."""
        images, labels = batch.images[:INITIALIZATION_IMAGES], batch.labels[:INITIALIZATION_IMAGES]
        with data_dependent_initialization(self.network):
            self.network(2 * images.to(self.dtype) - 1, labels)

    def mixture(self, symbols: Int[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> MixtureParameters:
        """Return the distribution of every pixel given those before it, shapes (B, H, W, ...)."""
        raw = self.network(2 * self.to_images(symbols) - 1, labels)
        return split_mixture_parameters(raw.movedim(1, -1), self.spec.channels)

    def nll(self, symbols: Int[Tensor, "B C H W"], labels: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the exact nats per image, without computing probabilities of levels that do not occur."""
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

    def redraw(
        self,
        symbols: Int[Tensor, "B C H W"],
        labels: Int[Tensor, " B"],
        uniforms: Float[Tensor, "B C r W"],
        *,
        rows: slice,
        temperature: float,
    ) -> Int[Tensor, "B C r W"]:
        """Return symbols of some rows, drawn channel after channel of a pixel without a further pass."""
        raw = self.network(2 * self.to_images(symbols) - 1, labels)[:, :, rows]
        parameters = split_mixture_parameters(raw.movedim(1, -1), self.spec.channels)
        levels = symbols[:, :, rows].movedim(1, -1).clone()  # (B, r, W, C)
        edges = upper_edges(self.num_values, like=raw)
        for channel, thresholds in enumerate(uniforms.unbind(1)):
            if temperature == 1.0:
                drawn = invert_channel_cdf(
                    parameters, levels, channel, thresholds, edges=edges, num_levels=self.num_values
                )
            else:
                log_probs = channel_log_probs(parameters, levels, channel, num_levels=self.num_values)
                drawn = invert_cdf(log_probs.flatten(0, 2), thresholds.flatten(), temperature=temperature)
            levels[..., channel] = drawn.view_as(thresholds)
        return levels.movedim(-1, 1)

    def decoder(self, labels: Int[Tensor, " n"], *, dtype: torch.dtype) -> Decoder:
        return TwoStreamDecoder(self.network, spec=self.spec, labels=labels, dtype=dtype)

    def compilable(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def compilation_cost(self) -> CompilationCost:
        """Return the figures for 3 blocks of 16 filters and 28x28 pixels, in proportion to their product."""
        size = self._size / (3 * 16 * 28 * 28)
        return CompilationCost(seconds=80.0, milliseconds_per_image=11.5 * size, speedup=1.12)

    def shardable(self) -> tuple[nn.Module, ...]:
        network = self.network
        streams = (network.u_down, network.ul_down, network.u_up, network.ul_up)
        return (*(block for stream in streams for blocks in stream for block in modules_of(blocks)), network)
