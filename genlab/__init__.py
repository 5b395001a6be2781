"""genlab: train, sample, measure and compare the classic image generative models."""

__version__ = "0.1.0"
