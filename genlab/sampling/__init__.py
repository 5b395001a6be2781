"""Pictures on disk: grids, strips and films.

Public: :mod:`genlab.sampling.pictures`.
"""
