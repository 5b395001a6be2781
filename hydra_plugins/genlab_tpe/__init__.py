"""Hydra finds plugins in this namespace package only; the search itself is genlab.launch.search."""
