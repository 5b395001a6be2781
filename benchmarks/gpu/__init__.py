"""Benchmarks that need a GPU: agreement first, then times, launches and memory (``python -m benchmarks.gpu``)."""
