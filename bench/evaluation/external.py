"""Label maps that another program made, counted and stored as a result like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.cards import Card
from bench.data.images import pillow_errors
from bench.data.label_faults import impossible_values
from bench.data.labels import read_label
from bench.data.prepared import recipe
from bench.data.samples import SampleSet
from bench.data.schema import LabelRule
from bench.errors import BenchError, reading
from bench.inference.visualize import palette_png
from bench.metrics import BINS, count
from bench.metrics.boundary import boundary_counts
from bench.settings import EXTERNAL, IGNORED, Settings
from bench.store.maps import LabelMaps
from bench.store.record import Info, ResultSpec
from bench.store.result import StoredResult
from bench.store.store import Store

ENDINGS = (".png", ".tif", ".tiff", ".npy", ".npz")


@dataclass(frozen=True)
class Predictions:
    """Where the label maps are.

    pattern: file name of a sample, with {id}; None: its id with any of ENDINGS.
    as_labels: they hold the values or colours of the dataset's label files, in place of class numbers.
    """

    folder: Path
    pattern: str | None = None
    as_labels: bool = False

    def file(self, sample: str) -> Path:
        """Return the file of a sample; BenchError where there is none."""
        name = sample.replace("/", "_")
        names = [self.pattern.replace("{id}", name)] if self.pattern else [f"{name}{ending}" for ending in ENDINGS]
        found = next((self.folder / name for name in names if (self.folder / name).is_file()), None)
        if found is None:
            raise BenchError(f"{self.folder}: no prediction of sample '{sample}'; expected {' or '.join(names)}")
        return found


def score_predictions(  # noqa: PLR0913 (what `bench score` asks)
    store: Store,
    samples: SampleSet,
    predictions: Predictions,
    row: str,
    label: str | None = None,
    report: Callable[[int], None] = lambda _: None,
    boundary: bool = False,
) -> StoredResult:
    """Count label maps against the labels of a dataset; store the result, and the maps, under the name of a row.

    Every sample must have a label map of its size, or scores (K, H, W); what is wrong is said before anything is
    stored. There are no probabilities, so the result has no thresholds. report: called with how many sources are done.
    boundary: count boundary IoU as well.
    """
    card = samples.card
    old = store.cell(row, card.name)
    if old is not None and old.settings.method != EXTERNAL:
        raise BenchError(
            f"{store.folder}: holds a result of the method {old.settings.method} as '{row}'; choose another name"
        )
    files = [predictions.file(name) for name in samples.ids]
    rule = card.layouts[samples.layout].labels if predictions.as_labels else None
    digest = hashlib.sha256()
    counted, drawn = [], []
    for done, source in enumerate(range(len(samples.sources))):
        for sample in samples.read_source(source):
            reason = impossible_values(samples, source, sample.label)
            if reason:
                raise BenchError(reason)
            predicted = read_prediction(files[sample.index], card, sample.label.shape, rule)
            digest.update(predicted.tobytes())
            bins = np.full_like(predicted, BINS - 1)
            outlines = boundary_counts(sample.label, predicted, len(card.classes)) if boundary else None
            drawn.append((sample.id, palette_png(predicted, card.colours)))
            counted.append((*count(sample.label, predicted, bins, len(card.classes)), outlines))
        report(done + 1)
    inputs = {
        "predictions": digest.hexdigest(),
        "data list": samples.names_fingerprint(),
        "card": recipe(card, samples.layout),
    }
    layout = card.layouts[samples.layout]
    info = Info(label=label or row, device=EXTERNAL, layout=samples.layout, footnote=layout.footnote)
    info.caveat = "external: label maps made by another program"
    images = [(name, samples.scene(index)) for index, name in enumerate(samples.ids)]
    settings = Settings.neutral(row, card.name, EXTERNAL, background=card.background)
    spec = ResultSpec(
        settings, inputs, images, card.classes, card.metric, info, None, card.expected_count, card.facts()
    )
    writer = store.open(spec, fresh=True)
    for index, of_image in enumerate(counted):
        writer.add(index, *of_image)
    writer.finish()
    stored = store.cell(row, card.name)
    assert stored is not None
    maps = LabelMaps.of(stored)
    maps.begin()
    for name, png in drawn:
        maps.write(name, png)
    return stored


def read_prediction(file: Path, card: Card, size: tuple[int, ...], rule: LabelRule | None = None) -> NDArray[np.uint8]:
    """Read a label map (H, W) of class numbers.

    It is an index or palette image, an image in the card's colours, an array of class numbers (H, W), or of scores (K,
    H, W), of which the highest wins; with a rule, an image that is read as the dataset's labels are.

    Raises BenchError where it is none, has another size, or holds what is no class.
    """
    found: NDArray[np.integer]
    if rule is not None:
        with reading(file, "give the folder of the label maps"):
            found = read_label(file.read_bytes(), rule, card, str(file))
    elif file.suffix in (".npy", ".npz"):
        found = _read_array(file, len(card.classes))
    else:
        with pillow_errors(str(file)), Image.open(file) as image:
            image.load()
            found = np.asarray(image if image.mode in ("L", "P", "I", "I;16", "1") else image.convert("RGB"))
        if found.ndim == 3:
            found = _from_colours(found.astype(np.uint8), card, file)
    if found.shape != size:
        raise BenchError(
            f"{file}: {found.shape[1]}x{found.shape[0]} pixels, its sample has {size[1]}x{size[0]}; give label maps of "
            "the original size"
        )
    wrong = np.unique(found[(found < 0) | (found >= len(card.classes))])
    if wrong.size:
        raise BenchError(
            f"{file}: holds {', '.join(map(str, wrong[:3]))}; the classes of {card.name} are 0 to "
            f"{len(card.classes) - 1}, and every pixel needs one"
            + ("" if rule else "; values of the dataset's label files take --as-labels")
        )
    return found.astype(np.uint8)


def _read_array(file: Path, classes: int) -> NDArray[np.integer]:
    try:
        loaded = np.load(file, allow_pickle=False)
        found = loaded if file.suffix == ".npy" else loaded[loaded.files[0]]
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise BenchError(f"{file}: cannot be read ({error})") from None
    if found.ndim == 3 and found.shape[0] == classes:
        if not np.isfinite(found).all():
            raise BenchError(f"{file}: scores that are not finite")
        return np.asarray(found.argmax(axis=0))
    if found.ndim != 2 or found.dtype.kind not in "ui":
        raise BenchError(
            f"{file}: {found.dtype} {found.shape}; class numbers (H, W) or scores ({classes}, H, W) are needed"
        )
    return np.asarray(found)


def _from_colours(pixels: NDArray[np.uint8], card: Card, file: Path) -> NDArray[np.integer]:
    found = np.full(pixels.shape[:2], IGNORED, np.int64)
    for number, colour in enumerate(card.colours):
        found[(pixels == np.array(colour, np.uint8)).all(axis=2)] = number
    if (found == IGNORED).any():
        y, x = np.argwhere(found == IGNORED)[0]
        raise BenchError(f"{file}: colour {tuple(pixels[y, x].tolist())} at {x}, {y} is none of the card's palette")
    return found
