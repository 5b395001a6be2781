"""What the mathematics of a model promises, as functions of the model that `genlab check` and the tests share."""
