"""DRAW (arXiv:1502.04623) and its classifier."""
