"""Techniques that combine with any GAN, one per file; :mod:`genlab.models.gan.techniques.base` says where they act."""
