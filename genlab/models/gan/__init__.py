"""The GAN family: networks, an objective, conditioning and techniques, chosen one by one.

:mod:`genlab.models.gan.gan` puts the parts together; every preset of the literature is a YAML file over it.
"""
