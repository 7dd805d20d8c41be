"""Frozen models, and what methods may do with them."""
