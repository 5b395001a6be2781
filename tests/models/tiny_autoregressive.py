"""Autoregressive models small enough for brute force, and the slow way of drawing from one."""

from typing import Any

import torch
from torch import Tensor

from genlab.models.autoregressive import AutoregressiveModel
from genlab.models.gated_pixelcnn import GatedPixelCNN
from genlab.models.incremental.sampler import invert_cdf
from genlab.models.pixelcnn import PixelCNN
from genlab.models.pixelcnn_blocks import PixelCNNBlocks
from genlab.models.pixelcnn_pp import PixelCNNPP
from genlab.types import ImageSpec
from tests.models.tiny import make_spec, randomize

RESIDUAL: dict[str, Any] = {
    "num_blocks": 2,
    "stream_channels": 8,
    "block_channels": 6,
    "input_kernel": 5,
    "block_kernel": 3,
    "reduces": True,
    "head_channels": [7],
    "normalization": None,
    "dropout": 0.1,
    "position_bias": True,
}
GATED: dict[str, Any] = {
    "num_layers": 3,
    "channels": 6,
    "input_kernel": 5,
    "kernel_size": 3,
    "head_channels": [7],
    "class_conditional": False,
    "dropout": 0.1,
    "position_bias": True,
}
TWO_STREAM: dict[str, Any] = {
    "filters": 4,
    "blocks_down": [1, 1],
    "num_components": 3,
    "class_conditional": False,
    "dropout": 0.1,
}
SETTINGS: dict[type[AutoregressiveModel], dict[str, Any]] = {
    PixelCNN: RESIDUAL,
    GatedPixelCNN: GATED,
    PixelCNNPP: TWO_STREAM,
    PixelCNNBlocks: RESIDUAL,
}
MODELS = list(SETTINGS)


def make(kind: type[AutoregressiveModel], spec: ImageSpec | None = None, **changes: Any) -> AutoregressiveModel:
    """A model in evaluation mode whose every parameter matters."""
    model = kind(spec=spec or make_spec(), **(SETTINGS[kind] | changes))  # type: ignore[call-arg]
    randomize(model, 0.2)
    return model.eval()


@torch.no_grad()
def decode(model: AutoregressiveModel, symbols: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """The logits (B, S, K, h, w) of known images, from the decoder."""
    decoder = model.decoder(labels, dtype=dtype)
    batch, channels, height, width = symbols.shape
    logits = torch.empty(batch, channels, model.num_values, height, width)
    for row in range(height):
        decoder.begin_row(row)
        for column in range(width):
            for channel in range(channels):
                decoder.advance(column, channel)
                logits[:, channel, :, row, column] = decoder.logits(column, channel)
                decoder.write(column, channel, symbols[:, channel, row, column])
    return logits


@torch.no_grad()
def draw_with_full_passes(model: AutoregressiveModel, uniforms: Tensor, labels: Tensor) -> Tensor:
    """One full pass of the network per symbol."""
    symbols = torch.zeros(uniforms.shape, dtype=torch.long)
    _, channels, height, width = uniforms.shape
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                logits = model.logits(symbols, labels)[:, channel, :, row, column]
                symbols[:, channel, row, column] = invert_cdf(logits, uniforms[:, channel, row, column])
    return model.to_images(symbols)
