"""Layers that depend on shapes, and neither on data nor on probability.

Public: the layers, each named by its module, such as :class:`genlab.nn.masked.MaskedConv2d`.
"""
