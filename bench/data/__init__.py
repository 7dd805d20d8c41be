"""Datasets, from cards (what there is) to samples (image and label arrays in a fixed order)."""
