"""The upsamplers of the demo: training and probing."""
