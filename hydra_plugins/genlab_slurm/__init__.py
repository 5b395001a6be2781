"""Hydra finds plugins in this namespace package only; the launcher itself is genlab.launch.slurm."""
