"""Composition, validation and building of configurations, and the targets that they may name.

Public: nothing; the YAML files in ``configs/`` are the interface.
"""
