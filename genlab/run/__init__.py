"""Run folders: their files, and loading a model from them."""
