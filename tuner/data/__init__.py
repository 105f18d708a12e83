"""Datasets: generation, metadata, pixel cache, augmentation and batches."""
