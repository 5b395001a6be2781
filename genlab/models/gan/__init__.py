"""The GAN family: networks, an objective, conditioning and techniques that combine freely.

:mod:`genlab.models.gan.gan` puts the parts together; every preset of the literature is a YAML file over it.
"""
