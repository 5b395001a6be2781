"""Computation over several processes: collectives, sharding, synchronized layers.

Public: :mod:`genlab.parallel.collectives`, with what a model of your own asks for.
"""
