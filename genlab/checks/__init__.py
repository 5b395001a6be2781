"""Mathematical invariants of models, as functions that `genlab check` and the tests share.

Public: nothing; `genlab check` is the way to them.
"""
