"""Reference benchmark for training-free open-vocabulary semantic segmentation of remote sensing images.

    import bench

    segment = bench.load_segmenter("segearth-ov", "background; road; water", backbone="demo")
    labels = segment("scene.png").labels            # (H, W) uint8, class numbers
    bench.scores("results")                         # stored results as a pandas frame

Nothing heavy is imported before one of these is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.errors import BenchError as BenchError
    from bench.notebook import compare as compare
    from bench.notebook import load_segmenter as load_segmenter
    from bench.notebook import per_class as per_class
    from bench.notebook import per_image as per_image
    from bench.notebook import scores as scores

__version__ = "0.1.0"
_OFFERED = {
    "BenchError": "bench.errors",
    "compare": "bench.notebook",
    "load_segmenter": "bench.notebook",
    "per_class": "bench.notebook",
    "per_image": "bench.notebook",
    "scores": "bench.notebook",
}
__all__ = ["BenchError", "compare", "load_segmenter", "per_class", "per_image", "scores"]


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(import_module(_OFFERED[name]), name)
