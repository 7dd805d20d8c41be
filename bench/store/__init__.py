"""Results on disk: one folder for each cell, written atomically."""

from bench.store.store import Store

__all__ = ["Store"]
