"""Comparison of this machine, device and dtype with outputs of the released code: `python -m bench verify`."""
