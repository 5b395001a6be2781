"""The commands besides train, one file each.

Public: nothing; :mod:`genlab.api` has the commands as functions.
"""
