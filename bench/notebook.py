"""What a notebook needs: segment own images, look at stored results. `bench` offers these functions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from bench.config import load_config
from bench.data.cards import load_card
from bench.demo.clip.words import unknown_words
from bench.demo.config import DEMO, with_backbone
from bench.errors import BenchError, did_you_mean
from bench.evaluation.models import Zoo
from bench.inference.predictor import Predictor
from bench.inference.segmenter import Segmenter
from bench.metrics import score, summary
from bench.models.text import Vocabulary
from bench.registry import find_method, load_methods
from bench.report.comparison import Comparison
from bench.report.comparison import compare as compare_rows
from bench.runtime.device import choose_device, default_batch
from bench.settings import Settings
from bench.store import Store

Classes: TypeAlias = str | Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class SegmenterOptions:
    """How `load_segmenter` departs from the row.

    backbone: a name of benchmark.yaml, an open_clip model NAME[:TAG], its config JSON, or "demo". checkpoint: its
    weights. upsamplers: files by name of benchmark.yaml. device, dtype, batch: as in `bench run`; None: chosen.
    long_side: of the network's input, pixels. native: the image's own resolution instead, strip by strip. debias: λ.
    threshold: pixels less probable become class `background`. plugins: files or folders of methods. config: another
    benchmark.yaml.
    """

    backbone: str | None = None
    checkpoint: str | Path | None = None
    upsamplers: Mapping[str, Path] = field(default_factory=dict)
    device: str | None = None
    dtype: str = "fp32"
    batch: int | None = None
    long_side: int | None = None
    native: bool = False
    debias: float | None = None
    threshold: float = 0.0
    background: int = 0
    plugins: Sequence[str | Path] = ()
    config: str | Path | None = None


def load_segmenter(
    method: str,
    classes: str | Sequence[str | Sequence[str]] | None = None,
    dataset: str | None = None,
    **options: object,
) -> Predictor:
    """A method with its words, ready to be called on images: `load_segmenter("sclip+ours", ["road", "water"])(image)`.

    method: a row or method, as `python -m bench methods` lists them. classes: "background; road; building, house" or a
    list whose entries are words or lists of synonyms; or dataset: a card, whose words, threshold and background are
    taken. options: of `SegmenterOptions`. Raises BenchError for what does not exist or does not fit.
    """
    known = SegmenterOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise BenchError(f"load_segmenter: unknown option '{name}'; {did_you_mean(name, known)}")
    chosen = SegmenterOptions(**options)  # type: ignore[arg-type]
    if (classes is None) == (dataset is None):
        raise BenchError("load_segmenter: give either classes or dataset")
    if dataset is not None:
        card = load_card(dataset)
        words: Sequence[Sequence[str]] = card.vocabularies[load_config(chosen.config).protocol.vocabulary]
        options = {"threshold": card.threshold, "background": card.background} | options
        chosen = SegmenterOptions(**options)  # type: ignore[arg-type]
        vocabulary = Vocabulary.of(words)
    elif isinstance(classes, str):
        vocabulary = Vocabulary.parse(classes)
    else:
        vocabulary = Vocabulary.of([[entry] if isinstance(entry, str) else entry for entry in classes or ()])
    return predictor(method, vocabulary, chosen)


def predictor(method: str, vocabulary: Vocabulary, options: SegmenterOptions) -> Predictor:
    """What `load_segmenter` and `bench predict` load."""
    if not 0 <= options.background < vocabulary.size:
        raise BenchError(f"background {options.background}: there are {vocabulary.size} classes, numbered from 0")
    if not 0 <= options.threshold <= 1:
        raise BenchError(f"threshold {options.threshold}: a probability between 0 and 1 is needed")
    config, methods = with_backbone(load_config(options.config), options.backbone), load_methods(list(options.plugins))
    row = config.row(method)
    defaults = find_method(row.method, methods).defaults
    given = {"debias": options.debias, "resize": {"long_side": options.long_side} if options.long_side else None}
    settled = config.settle(row, defaults, {}, {key: value for key, value in given.items() if value is not None})
    settled |= {"threshold": options.threshold, "background": options.background}
    settings = Settings(row=method, dataset="-", method=row.method, **settled)
    device = choose_device(options.device, options.dtype)
    checkpoint = Path(options.checkpoint) if options.checkpoint else None
    models = Zoo(config, methods, checkpoint, options.upsamplers, device, options.dtype)
    if settings.backbone == DEMO and (strange := unknown_words(vocabulary.queries)):
        warnings.warn(
            f"the demo's CLIP has not learned {', '.join(strange)}: what it finds for them means nothing", stacklevel=2
        )
    query, _ = models.query(settings, vocabulary.words)
    backbone = models.backbone(settings.backbone)
    batch = options.batch or default_batch(device)
    segmenter = Segmenter(backbone, [query], settings.window, settings.stride, batch)
    return Predictor(segmenter, settings, vocabulary, options.native)


def scores(results: str | Path = "results", limit: int | None = None) -> pd.DataFrame:
    """Stored cells, one line each: row, dataset, status, images, metric, and every number of it as a fraction."""
    lines = []
    for cell in Store(results, limit=limit).cells():
        line = {"row": cell.row, "dataset": cell.dataset, "status": cell.status, "images": cell.counted}
        line |= {"total": cell.total, "metric": cell.metric, "demo": bool(cell.record["demo"])}
        numbers = summary(cell.areas(), cell.metric) if cell.counted else {}
        lines.append(line | {name: value for name, value in numbers.items() if not isinstance(value, list)})
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def per_class(results: str | Path = "results", limit: int | None = None) -> pd.DataFrame:
    """IoU, accuracy, precision and F1 of each class of the stored cells, one line for each row, dataset and class."""
    lines = []
    for cell in Store(results, limit=limit).cells():
        numbers = summary(cell.areas().total, cell.metric) if cell.counted else {}
        for index, name in enumerate(cell.classes if numbers else ()):
            of_class = {key: values[index] for key, values in numbers.items() if isinstance(values, list)}
            lines.append({"row": cell.row, "dataset": cell.dataset, "class": name, **of_class})
    frame: pd.DataFrame = pd.DataFrame(lines)
    return frame


def per_image(row: str, dataset: str, results: str | Path = "results", limit: int | None = None) -> pd.DataFrame:
    """The score of each image of a stored cell: index, id, scene, score (a fraction, nan where undefined)."""
    cell = Store(results, limit=limit).cell(row, dataset)
    if cell is None:
        raise BenchError(f"{results}: nothing is stored of {row} on {dataset}; `bench.scores()` lists what is")
    values = score(cell.areas(), cell.metric)
    columns = {"index": cell.indices, "id": cell.ids, "scene": cell.scenes, "score": values}
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def compare(
    first: str, second: str, results: str | Path = "results", datasets: Sequence[str] | None = None
) -> Comparison:
    """Paired differences first - second of two stored rows, with intervals and tests: `bench compare` as an object."""
    return compare_rows(Store(results), first, second, datasets)
