"""What only a GPU can show: agreement first, then times, launches and memory (``python -m benchmarks.gpu``)."""
