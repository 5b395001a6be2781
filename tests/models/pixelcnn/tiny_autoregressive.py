"""Autoregressive models small enough for brute force."""

from typing import Any

from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.blocks import PixelCNNBlocks
from genlab.models.pixelcnn.gated import GatedPixelCNN
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
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
