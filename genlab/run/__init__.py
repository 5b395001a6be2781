"""What is in a run folder, and how a model comes back from it."""
