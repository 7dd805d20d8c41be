"""Reference benchmark for training-free open-vocabulary semantic segmentation of remote sensing images."""

__version__ = "0.1.0"
