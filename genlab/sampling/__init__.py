"""Pictures on disk: grids, strips and films."""
