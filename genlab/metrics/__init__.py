"""What is measured of a trained model, and what makes two measures comparable."""
