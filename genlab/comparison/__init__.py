"""Runs set side by side, and results beside published ones; reads the files of run folders, and nothing of torch.

Public: nothing; ``genlab compare --json`` and ``--csv`` are for programs.
"""
