"""Mathematical invariants of models, as functions that `genlab check` and the tests share."""
