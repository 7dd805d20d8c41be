"""Small pictures for the page: label maps that were kept, and the image and label that they belong to."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, Final

import numpy as np
from PIL import Image

from bench.data.samples import SampleSet
from bench.errors import BenchError
from bench.metrics import score
from bench.report.figure import coloured
from bench.store.maps import LabelMaps
from bench.store.result import StoredResult

MOST: Final = 12  # images of a dataset that have pictures
SIDE: Final = 160  # pixels of the long side
INSIDE: Final = 1_000_000
"""Bytes of pictures that the page holds itself; if there are more, all are files in a folder beside it."""


@dataclass
class Pictures:
    """Pictures of a page.

    files: the encoded pictures by the name of their file, which is a hash of the content.
    shown: dataset -> number of an image -> "image" and "label" -> name, "maps" -> row -> name.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    shown: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)

    def inside(self) -> dict[str, str] | None:
        """Return the pictures as data URIs by name, or None where they are too many for the page."""
        if sum(map(len, self.files.values())) > INSIDE:
            return None
        return {
            name: f"data:image/{name.rpartition('.')[-1]};base64,{base64.b64encode(data).decode('ascii')}"
            for name, data in self.files.items()
        }

    def add(self, picture: Image.Image, photograph: bool = False) -> str:
        """Make a picture small, keep it, and return its name."""
        buffer = io.BytesIO()
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS if photograph else Image.Resampling.NEAREST)
        if photograph:
            picture.save(buffer, "JPEG", quality=80, optimize=True)
        else:
            picture.save(buffer, "PNG", optimize=True)
        name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.{'jpeg' if photograph else 'png'}"
        self.files[name] = buffer.getvalue()
        return name


def pictures(cells: Iterable[StoredResult], samples_of: Callable[[str], SampleSet | None]) -> Pictures:
    """Make the pictures of all results whose label maps were kept.

    samples_of: finds the images and labels of a dataset, or None; those that cannot be read are left out.
    """
    found = Pictures()
    by_dataset: dict[str, dict[str, tuple[StoredResult, LabelMaps]]] = {}
    for cell in cells:
        if (maps := LabelMaps.of(cell)).valid:
            by_dataset.setdefault(cell.dataset, {})[cell.row] = cell, maps
    for dataset, kept in by_dataset.items():
        samples, shown = samples_of(dataset), found.shown.setdefault(dataset, {})
        for index, name in chosen(kept):
            sound = {row: png for row, (_, of_row) in kept.items() if (png := of_row.find(name)) is not None}
            if not sound or len(shown) == MOST:
                continue
            entry = {"maps": {row: found.add(Image.open(io.BytesIO(png))) for row, png in sound.items()}}
            shown[index] = entry | (_sample(found, samples, index, name) if samples else {})
    return found


def chosen(kept: Mapping[str, tuple[StoredResult, LabelMaps]]) -> list[tuple[int, str]]:
    """Order the images (number, name) of which a row has its label map, those that are most worth a look first.

    In turn the image on which the scores of the rows differ most, and the one with the lowest score.
    """
    scores: dict[tuple[int, str], list[float]] = {}
    for bare, maps in kept.values():
        cell = bare.without_counts()  # its counts are freed with it
        mapped = maps.kept(cell.ids)
        of_cell = zip(cell.indices, cell.ids, score(cell.areas(), cell.metric), strict=True)
        for index, name, value in of_cell:
            if name in mapped:
                scores.setdefault((index, name), []).append(float(np.nan_to_num(value)))
    apart = sorted(scores, key=lambda one: min(scores[one]) - max(scores[one]))
    worst = sorted(scores, key=lambda one: min(scores[one]))
    return list(dict.fromkeys(filter(None, chain.from_iterable(zip_longest(apart, worst)))))


def _sample(found: Pictures, samples: SampleSet, index: int, name: str) -> dict[str, str]:
    try:
        if index >= len(samples) or samples.ids[index] != name:
            return {}
        sample = samples.read(index)
    except BenchError:
        return {}
    label = Image.fromarray(coloured(sample.label, samples.card))
    return {"image": found.add(Image.fromarray(sample.image), photograph=True), "label": found.add(label)}
