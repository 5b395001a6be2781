"""The loop that draws an image symbol by symbol, and what it asks of a network.

A symbol is what one step draws: a sub-pixel, or a block of pixels. A site is a pixel with all its channels, or a
block. Sites come in raster order, channels within a site in theirs.

Dimensions: n images, S channels (symbols per site), h rows and w columns of sites, K values of a symbol.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm


@runtime_checkable
class Decoder(Protocol):
    """A network that is fed the symbols one by one and keeps the activations it still needs."""

    def begin_row(self, row: int) -> None:
        """Everything that depends on the rows above only."""

    def advance(self, column: int, channel: int) -> None:
        """The features that belong to the next symbol, from the symbols before it."""

    def logits(self, column: int, channel: int) -> Float[Tensor, "n K"]:
        """Unnormalised log-probabilities of the next symbol, fp32."""

    def write(self, column: int, channel: int, symbols: Int[Tensor, " n"]) -> None:
        """Take in the symbol that was drawn or given."""


def invert_cdf(
    logits: Float[Tensor, "n K"], uniforms: Float[Tensor, " n"], *, temperature: float = 1.0
) -> Int[Tensor, " n"]:
    """The value at which the cumulative probability first exceeds the uniform.

    Drawing from uniforms made beforehand is several times faster than torch.multinomial over 256 values, and the
    same uniforms give the same image under every sampler, batch size and device (up to ties in float arithmetic).

    Args:
        logits: Unnormalised log-probabilities.
        uniforms: In [0, 1).
        temperature: Divides the logits; below 1 sharpens.
    """
    probabilities = torch.softmax(logits if temperature == 1.0 else logits / temperature, -1)
    cumulative = probabilities.cumsum(-1)
    # Scaled by the total, which rounding may leave a little off one.
    thresholds = uniforms[:, None] * cumulative[:, -1:]
    symbols = torch.searchsorted(cumulative, thresholds, right=True).squeeze(1)
    return symbols.clamp_(max=logits.shape[1] - 1)


@torch.no_grad()
def draw_symbols(
    decoder: Decoder,
    uniforms: Float[Tensor, "n S h w"],
    *,
    given: Int[Tensor, "n S h w"] | None = None,
    num_given_sites: int = 0,
    temperature: float = 1.0,
    progress: bool = False,
) -> Int[Tensor, "n S h w"]:
    """Draw every symbol of n images, the given sites excepted.

    Args:
        decoder: Fresh: nothing has been written to it.
        uniforms: In [0, 1), one per symbol.
        given: Symbols of which the first sites are kept.
        num_given_sites: How many sites, in raster order, are taken from `given`.
        temperature: Divides the logits.
        progress: Show a bar with the time left, a step a row.
    """
    num_samples, num_channels, height, width = uniforms.shape
    step_uniforms = uniforms.permute(2, 3, 1, 0).contiguous()  # (h, w, S, n)
    symbols = torch.zeros(step_uniforms.shape, dtype=torch.long, device=uniforms.device)
    if given is not None:
        symbols.copy_(given.permute(2, 3, 1, 0))
    for row in tqdm(range(height), desc=f"{num_samples} images", unit="row", disable=not progress, leave=False):
        decoder.begin_row(row)
        for column in range(width):
            is_given = row * width + column < num_given_sites
            for channel in range(num_channels):
                decoder.advance(column, channel)
                symbol = symbols[row, column, channel]
                if not is_given:
                    logits = decoder.logits(column, channel)
                    symbol.copy_(invert_cdf(logits, step_uniforms[row, column, channel], temperature=temperature))
                decoder.write(column, channel, symbol)
    return symbols.permute(3, 2, 0, 1).contiguous()
