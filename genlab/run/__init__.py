"""Run folders: their files, and loading a model from them.

Public: :class:`genlab.Run` and :func:`genlab.load`, from the package itself. The files are the contract.
"""
