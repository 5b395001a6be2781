"""Computation over several processes: collectives, sharding, synchronized layers."""
