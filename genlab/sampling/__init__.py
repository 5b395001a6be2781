"""Pictures on disk: grids, strips and films; the search for the latent of a given image.

Public: :mod:`genlab.sampling.pictures`, :mod:`genlab.sampling.latents`.
"""
