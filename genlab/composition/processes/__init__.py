"""A run of several processes: what a launcher tells each of them, and how they are started without typing torchrun."""
