"""Reading images with a trained model."""
