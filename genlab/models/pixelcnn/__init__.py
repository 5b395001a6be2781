"""Autoregressive models, each network beside its decoder."""
