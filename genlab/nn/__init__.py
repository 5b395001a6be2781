"""Layers that know shapes but neither data nor probability."""
