"""The loop that draws an image symbol by symbol; :class:`genlab.models.capabilities.Decoder` is what it calls.

A symbol is what one step draws: a sub-pixel, or a block of pixels. A site is a pixel with all its channels, or a
block. Sites come in raster order, channels within a site in theirs.

Dimensions: n images, S channels (symbols per site), h rows and w columns of sites, K values of a symbol.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from genlab.graphs import CudaGraphs
from genlab.models.capabilities import Decoder, InvertingDecoder, RepeatingDecoder

_PROBED_IMAGES = 8
_MEMORY_SHARE = 0.5
"""Share of the free memory for the decoders' buffers; the rest is for temporary tensors of a row."""


def invert_cdf(
    logits: Float[Tensor, "n K"], uniforms: Float[Tensor, " n"], *, temperature: float = 1.0
) -> Int[Tensor, " n"]:
    """Return the value at which the cumulative probability first exceeds the uniform.

    Drawing from uniforms made beforehand is several times faster than torch.multinomial over 256 values, and the
    same uniforms give the same image under every sampler, batch size and device (up to ties in float arithmetic).

    Args:
        logits: Unnormalised log-probabilities.
        uniforms: In [0, 1).
        temperature: Divides the logits; below 1 sharpens. Any positive number: near 0 the likeliest values share all.
    """
    probabilities = torch.softmax(logits if temperature == 1.0 else _divided(logits, temperature), -1)
    cumulative = probabilities.cumsum(-1)
    # Scaled by the total, which rounding may leave a little off one.
    thresholds = uniforms[:, None] * cumulative[:, -1:]
    symbols = torch.searchsorted(cumulative, thresholds, right=True).squeeze(1)
    return symbols.clamp_(max=logits.shape[1] - 1)


def images_that_fit(make_decoder: Callable[[int], Decoder], num_images: int, device: torch.device) -> int:
    """Return the number of images to draw together: all, or as many as fill half of a CUDA device's free memory.

    Args:
        make_decoder: A decoder of so many images; what it keeps is known only when it is made.
        num_images: To be drawn, at least 1.
        device: Device of the decoder.
    """
    if device.type != "cuda" or num_images <= 4 * _PROBED_IMAGES:
        return num_images
    before = torch.cuda.memory_allocated(device)
    decoder = make_decoder(_PROBED_IMAGES)
    bytes_per_image = (torch.cuda.memory_allocated(device) - before) / _PROBED_IMAGES
    del decoder
    torch.cuda.empty_cache()  # what stays reserved belongs to the graphs of training, which alone can use it
    free = torch.cuda.mem_get_info(device)[0]
    return min(num_images, max(_PROBED_IMAGES, int(_MEMORY_SHARE * free / max(bytes_per_image, 1.0))))


def _divided(logits: Float[Tensor, "n K"], temperature: float) -> Float[Tensor, "n K"]:
    """Divide the logits by a temperature that may be too small, or too large, for their type.

    They are measured from the largest, which stays 0: the quotients of the others are negative, at worst infinitely.
    """
    below = logits - logits.amax(-1, keepdim=True)
    return torch.where(below == 0, 0.0, below / min(temperature, torch.finfo(logits.dtype).max))


@torch.no_grad()
def draw_symbols(
    decoder: Decoder,
    uniforms: Float[Tensor, "n S h w"],
    *,
    given: Int[Tensor, "n S h w"] | None = None,
    num_given_sites: int = 0,
    temperature: float = 1.0,
    progress: bool = False,
    graphs: CudaGraphs | None = None,
) -> Int[Tensor, "n S h w"]:
    """Draw every symbol of n images, except for the given sites.

    Args:
        decoder: Fresh: nothing has been written to it.
        uniforms: In [0, 1), one per symbol.
        given: Symbols of which the first sites are kept.
        num_given_sites: Number of sites, in raster order, that are taken from `given`.
        temperature: Divides the logits.
        progress: Show a bar with the time left, a step a row.
        graphs: Recorder of CUDA graphs, used if the decoder is a :class:`RepeatingDecoder`; None draws eagerly.

    Raises:
        ValueError: `given` is missing or has not the shape of the uniforms, or the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    shape = None if given is None else given.shape
    if shape != uniforms.shape and (given is not None or num_given_sites > 0):
        told = "none" if shape is None else tuple(shape)
        raise ValueError(f"given must have the shape of the uniforms, {tuple(uniforms.shape)}, got {told}")
    num_samples, _, height, width = uniforms.shape
    rows = _Rows(decoder, uniforms, given, temperature=temperature)
    recorded: dict[tuple[int, int], Callable[[], None]] = {}
    for row in tqdm(range(height), desc=f"{num_samples} images", unit="row", disable=not progress, leave=False):
        num_given = min(max(num_given_sites - row * width, 0), width)
        draw = partial(rows.draw, row, num_given)
        if graphs is None or not isinstance(decoder, RepeatingDecoder):
            draw()
        elif row == 0 or 0 < num_given < width:
            graphs.warm_up(draw)
        else:
            kind = (row % decoder.row_period, num_given)
            if kind not in recorded:
                _, recorded[kind] = graphs.record(draw)
            recorded[kind]()
    return rows.symbols.permute(3, 2, 0, 1).contiguous()


class _Rows:
    """Loop over the rows; the row counter is on the device, so that a captured row advances it."""

    def __init__(self, decoder: Decoder, uniforms: Tensor, given: Tensor | None, *, temperature: float) -> None:
        self._decoder = decoder
        self._temperature = temperature
        # Another temperature needs the probabilities of all values of a symbol, to normalise them.
        self._inverting = decoder if temperature == 1.0 and isinstance(decoder, InvertingDecoder) else None
        self._uniforms = uniforms.permute(2, 3, 1, 0).contiguous()  # (h, w, S, n)
        self.symbols = torch.zeros(self._uniforms.shape, dtype=torch.long, device=uniforms.device)
        if given is not None:
            self.symbols.copy_(given.permute(2, 3, 1, 0))
        self._place = torch.zeros(1, dtype=torch.long, device=uniforms.device)

    def draw(self, row: int, num_given: int) -> None:
        """Draw the next row except for its first, given sites."""
        self._decoder.begin_row(row)
        uniforms = self._uniforms.index_select(0, self._place)[0]  # (w, S, n)
        symbols = self.symbols.index_select(0, self._place)[0]
        for column, uniforms_of_site in enumerate(uniforms):
            for channel, symbol in enumerate(symbols[column]):
                self._decoder.advance(column, channel)
                if column >= num_given:
                    symbol.copy_(self._drawn(column, channel, uniforms_of_site[channel]))
                self._decoder.write(column, channel, symbol)
        self.symbols.index_copy_(0, self._place, symbols[None])
        self._place += 1

    def _drawn(self, column: int, channel: int, uniforms: Tensor) -> Tensor:
        if self._inverting is not None:
            return self._inverting.invert_cdf(column, channel, uniforms)
        return invert_cdf(self._decoder.logits(column, channel), uniforms, temperature=self._temperature)
