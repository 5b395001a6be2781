"""Everything that happens over time: the loop, optimisation, evaluation, checkpoints, logging."""
