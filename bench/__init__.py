"""Reference benchmark for training-free open-vocabulary semantic segmentation of remote sensing images.

    import bench

    segment = bench.load_segmenter("segearth-ov", "background; road; water", backbone="demo")
    labels = segment("scene.png").labels            # (H, W) uint8, class numbers
    bench.run("sclip,clip", "whu_aerial", demo=True)      # as `python -m bench run`; the results are stored
    bench.scores("results")                         # stored results as a pandas frame

Nothing heavy is imported before one of these is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.errors import BenchError as BenchError
    from bench.evaluation.dataset_run import Progress as Progress
    from bench.figures import figure as figure
    from bench.notebook import load_segmenter as load_segmenter
    from bench.notebook import predict as predict
    from bench.notebook import run as run
    from bench.notebook import score as score
    from bench.report.details import show as show
    from bench.report.frames import compare as compare
    from bench.report.frames import export as export
    from bench.report.frames import html_report as html_report
    from bench.report.frames import per_class as per_class
    from bench.report.frames import per_image as per_image
    from bench.report.frames import scores as scores
    from bench.report.frames import tables as tables
    from bench.verify.doctor import doctor as doctor

__version__ = "0.2.0"
_OFFERED = {  # name -> module that has it
    "BenchError": "errors",
    "Progress": "evaluation.dataset_run",
    "doctor": "verify.doctor",
    "figure": "figures",
    "show": "report.details",
    **dict.fromkeys(("load_segmenter", "predict", "run", "score"), "notebook"),
    **dict.fromkeys(
        ("compare", "export", "html_report", "per_class", "per_image", "scores", "tables"), "report.frames"
    ),
}
__all__ = sorted(_OFFERED)


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(import_module(f"bench.{_OFFERED[name]}"), name)


def __dir__() -> list[str]:
    return __all__
