"""The loggers of ``logger=[...]``: TensorBoard, Weights & Biases, MLflow, each in a file of its own."""
