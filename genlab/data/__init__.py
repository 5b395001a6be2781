"""From bytes on disk to batches: sources, one uint8 store, the batch stream, binarisation."""
