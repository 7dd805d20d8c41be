"""The tiny CLIP of the demo, its weights, words and training."""
