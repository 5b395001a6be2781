"""Layers that know shapes but neither data nor probability.

Public: the layers, each named by its module, such as :class:`genlab.nn.masked.MaskedConv2d`.
"""
