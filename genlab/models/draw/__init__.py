"""DRAW (arXiv:1502.04623) and its classifier.

Public: the models, and the differentiable attention, which needs neither of them.
"""

from genlab.models.draw.attention import AttentionBias, FilterGrid, ReadAttention, Window, WriteAttention
from genlab.models.draw.classifier import DRAWClassifier
from genlab.models.draw.draw import DRAW

__all__ = ["DRAW", "AttentionBias", "DRAWClassifier", "FilterGrid", "ReadAttention", "Window", "WriteAttention"]
