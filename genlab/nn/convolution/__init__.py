"""Convolution and pooling whose gradients are derived by hand: in loops to read, in matrix products to train with."""
