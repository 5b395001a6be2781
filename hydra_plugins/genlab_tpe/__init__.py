"""Hydra finds plugins in this namespace package only; the search itself is genlab.composition.sweep.search."""
