"""Autoregressive models, each network beside its decoder.

Public: the models, and the incremental sampler, which draws from any network that is a :class:`Decoder`.
"""

from genlab.models.capabilities import Decoder, InvertingDecoder, RepeatingDecoder
from genlab.models.pixelcnn.autoregressive import AutoregressiveModel
from genlab.models.pixelcnn.blocks import PixelCNNBlocks
from genlab.models.pixelcnn.gated import GatedPixelCNN
from genlab.models.pixelcnn.pixelcnn import PixelCNN
from genlab.models.pixelcnn.plus_plus import PixelCNNPP
from genlab.models.pixelcnn.sampler import draw_symbols, invert_cdf

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
