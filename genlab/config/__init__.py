"""Composition, validation and building of configurations, and the targets that they may name."""
