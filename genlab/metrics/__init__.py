"""Measures of a trained model, and the metadata that makes two measures comparable."""
