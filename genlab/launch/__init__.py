"""Who starts which process: commands, processes, sweeps, searches."""
