"""Scenes written to disk the way a dataset's layout has them: the inverse of bench.data.samples.

The demo renders scenes and writes them as the downloads would be; the tests do so for every card. All that
is needed to know (folders, names, suffixes, label colours, tiles) comes from the card.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.cards import Card
from bench.data.labels import palette_table
from bench.data.patterns import expand, fill, parse
from bench.data.schema import IndexRule, LabelRule, Layout, LinesRule, PaletteRule, ThresholdRule
from bench.data.tiling import boxes, crop, pad
from bench.errors import BenchError
from bench.settings import IGNORED

Scene = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # RGB (H, W, 3) and class index (H, W)
_JPEG_QUALITY = 95


def write_dataset(card: Card, root: Path, scenes: Iterable[Scene], layout: str = "original") -> Path:
    """Write scenes as one layout of a dataset below the data root; gives the dataset's folder.

    Names are taken from the card's split, else they count on from its example. Scenes of a tiled dataset are
    written whole or cut, as the layout has them. JPEG layouts change the images; labels come back as given.

    Raises BenchError for label values that the layout cannot hold, and for more scenes than the split has
    names.
    """
    spec = card.layouts[layout]
    folder = root / card.folders[0]
    names = _names(card, spec)
    for scene in scenes:
        named = next(names, None)
        if named is None:
            raise BenchError(f"{card.name}: more scenes than the split has names; give fewer")
        for fields, image, label in _cut(card, spec, named, *scene):
            path = folder / fill(expand(spec.label)[0], fields)
            file = folder / fill(expand(spec.image)[0], fields)
            _save_bands(image, spec.bands, file) if spec.bands else _save(Image.fromarray(image), file)
            _save(_encoded(label, spec.labels, card, path), path)
    return folder


def _names(card: Card, layout: Layout) -> Iterator[dict[str, str]]:
    """Fields of one source after the other."""
    split = layout.split or card.split
    if split is not None:
        yield from filter(None, (parse(split.key, name, card.fields) for name in split.names))
        return
    example = layout.example or card.example
    counted = next(field for field, value in example.items() if re.search(r"\d$", value))
    stem, number = re.fullmatch(r"(.*?)(\d+)", example[counted]).groups()  # type: ignore[union-attr]
    for at in itertools.count(int(number)):
        yield {**example, counted: f"{stem}{at:0{len(number)}d}"}


def _cut(
    card: Card, layout: Layout, fields: dict[str, str], image: NDArray[np.uint8], label: NDArray[np.uint8]
) -> Iterator[tuple[dict[str, str], NDArray[np.uint8], NDArray[np.uint8]]]:
    if card.tiling is None or layout.cut:
        yield fields, image, label
        return
    grid = boxes(card.tiling, *label.shape)
    image, label = pad(image, label, card.tiling)
    for box in grid:
        tile = {axis: str(value) for axis, value in box._asdict().items()}
        yield {**fields, **tile}, crop(image, box), crop(label, box)


def _encoded(label: NDArray[np.uint8], rule: LabelRule, card: Card, path: Path) -> Image.Image:
    if isinstance(rule, LinesRule):
        raise BenchError(f"{card.name}: labels drawn from lines cannot be written; choose another layout")
    stored = _stored_values(rule, card)
    if unknown := set(np.unique(label).tolist()) - stored.keys():
        raise BenchError(f"{path}: the layout cannot hold the label value {unknown.pop()}; change the scene")
    table = np.zeros((256, 3 if isinstance(rule, PaletteRule) else 1), np.uint8)
    for value, code in stored.items():
        table[value] = code
    pixels = table[label]
    if isinstance(rule, ThresholdRule) and rule.stored == "bilevel":
        return Image.fromarray(pixels[..., 0] > 0)
    if isinstance(rule, ThresholdRule) and rule.stored == "rgb":
        pixels = pixels.repeat(3, axis=-1)
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


def _stored_values(rule: IndexRule | PaletteRule | ThresholdRule, card: Card) -> dict[int, tuple[int, ...]]:
    """Return the stored values of each label value that the layout can hold."""
    classes = range(len(card.classes))
    if isinstance(rule, PaletteRule):
        return {value: colour for colour, value in reversed(palette_table(rule, card))}
    if isinstance(rule, ThresholdRule):
        return {0: (0,), 1: (255 if rule.at > 1 else 1,)}
    if rule.raw_ids:
        return {**{k: (raw,) for k, raw in zip(classes, rule.raw_ids, strict=True)}, IGNORED: (255,)}
    shift = 1 if rule.reduce_zero else 0
    return {**{k: (k + shift,) for k in classes}, IGNORED: (0 if rule.reduce_zero else 255,)}


def _save_bands(image: NDArray[np.uint8], bands: tuple[int, int, int], path: Path) -> None:
    """Save a TIFF in which `bands` are red, green and blue; what else there is holds their mean."""
    try:
        import rasterio
    except ImportError:
        raise BenchError(f"{path}: writing bands needs rasterio; pip install 'ovss-bench[geo]'") from None
    stack = np.repeat(image.mean(-1, dtype=np.float32).astype(np.uint8)[None], max(4, *bands), axis=0)
    stack[[band - 1 for band in bands]] = image.transpose(2, 0, 1)
    count, height, width = stack.shape
    shape = {"count": count, "height": height, "width": width}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has no georeference
        with rasterio.open(path, "w", driver="GTiff", dtype="uint8", photometric="MINISBLACK", **shape) as file:
            file.write(stack)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".jpg":
        image.save(path, quality=_JPEG_QUALITY)
    else:
        image.save(path, **({"compression": "tiff_ccitt"} if image.mode == "1" else {}))
