"""Autoregressive models, each network beside its decoder.

Public: the models, and the incremental sampler, which draws from any network that is a :class:`Decoder`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from genlab.models.pixelcnn.sampler import Decoder, InvertingDecoder, RepeatingDecoder, draw_symbols, invert_cdf

if TYPE_CHECKING:
    from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
    from genlab.models.pixelcnn.blocks import PixelCNNBlocks
    from genlab.models.pixelcnn.gated import GatedPixelCNN
    from genlab.models.pixelcnn.pixelcnn import PixelCNN
    from genlab.models.pixelcnn.plus_plus import PixelCNNPP
else:
    _MODULES = {"AutoregressiveModel": "autoregressive", "PixelCNNBlocks": "blocks", "GatedPixelCNN": "gated"}
    _MODULES |= {"PixelCNN": "pixelcnn", "PixelCNNPP": "plus_plus"}

    def __getattr__(name: str) -> Any:
        """Import a model when it is asked for: the interface of all models names the decoder of this package."""
        if name in _MODULES:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AutoregressiveModel",
    "Decoder",
    "GatedPixelCNN",
    "InvertingDecoder",
    "PixelCNN",
    "PixelCNNBlocks",
    "PixelCNNPP",
    "RepeatingDecoder",
    "draw_symbols",
    "invert_cdf",
]
