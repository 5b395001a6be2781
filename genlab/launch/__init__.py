"""Launching of commands, processes, sweeps and searches.

Public: nothing.
"""
