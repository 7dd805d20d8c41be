"""Label files to class indices, by the rule of the layout.

Labels are decoded with Pillow, as mmsegmentation does: palette images give their indices, and orientation
tags are ignored.
"""

from __future__ import annotations

import io
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.cards import Card
from bench.data.geojson import draw_lines
from bench.data.images import check_complete, pillow_errors
from bench.data.schema import Colour, IndexRule, LabelRule, LinesRule, PaletteRule, ThresholdRule
from bench.errors import BenchError
from bench.settings import IGNORED

Label = NDArray[np.uint8]  # (H, W): class index, 255 ignored
PILLOW_FAULT = (
    "Pillow 10.1 and later spoil labels that a converter saves in mode 'P'; use the original download, "
    "or convert it again with Pillow 10.0"
)
UNMATCHED_LIMIT = 0.05  # share of pixels in unknown colours beyond which a file is no label map
_STRIP = 512  # rows that are looked up at a time


def read_label(data: bytes, rule: LabelRule, card: Card, name: str, scene: bytes = b"") -> Label:
    """Class indices (H, W) uint8 of a label file's bytes; 255 is ignored, values from K to 254 are kept.

    `scene` are the bytes of the image file, from which lines take their georeference; `name` is what errors
    call the label.

    Raises BenchError for a file that is no label of this kind, or that a known fault of other tools has
    spoilt.
    """
    if isinstance(rule, LinesRule):
        return draw_lines(data, scene, rule.width_m, name)
    label = _read_label(data, rule, card, name)
    if card.uncounted:
        label[np.isin(label, [card.classes.index(one) for one in card.uncounted])] = IGNORED
    return label


def _read_label(data: bytes, rule: IndexRule | PaletteRule | ThresholdRule, card: Card, name: str) -> Label:
    image = open_label(data, name)
    if isinstance(rule, PaletteRule):
        label, off = from_colours(image, rule, card, name)
        if off > UNMATCHED_LIMIT:
            raise BenchError(
                f"{name}: {off:.0%} of the pixels have a colour that stands for no class; it is an overlay "
                "(as the public label of Potsdam's 4_12 is) or was compressed with loss, get the original"
            )
        return label
    if isinstance(rule, ThresholdRule):
        return _from_mask(image, rule)
    if len(card.classes) > 2 and (image.mode == "1" or (data.startswith(b"\x89PNG") and data[24] == 1)):
        raise BenchError(f"{name}: the label has one bit a pixel, so every class became 1; {PILLOW_FAULT}")
    return _from_index(image, rule, name)


def palette_table(rule: PaletteRule, card: Card) -> tuple[tuple[Colour, int], ...]:
    """Every colour of a palette rule with its label value."""
    also = (((red, green, blue), value) for red, green, blue, value in rule.also)
    return (*((colour, index) for index, colour in enumerate(card.colours)), *also)


def jpeg_round_trip(label: Label, quality: int) -> Label:
    """Return a label as it is after it was saved as a grey JPEG; Pillow and OpenCV (the same codec) agree on it."""
    _, packed = cv2.imencode(".jpg", label, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def open_label(data: bytes, name: str) -> Image.Image:
    """Decode a label file; BenchError for one that is damaged or has more than 8 bits a channel."""
    check_complete(data, name)
    with pillow_errors(name):
        image = Image.open(io.BytesIO(data))
        image.load()
    if image.mode not in ("1", "L", "P", "LA", "PA", "RGB", "RGBA"):
        raise BenchError(f"{name}: {image.mode} pixels; labels are 8-bit, convert the file")
    return image


def _from_index(image: Image.Image, rule: IndexRule, name: str) -> Label:
    values = np.asarray(image.convert("L") if image.mode in ("LA", "PA") else image)
    if values.ndim != 2:
        raise BenchError(
            f"{name}: the label has colours where class numbers are expected; colours need `rule: palette`"
        )
    values = values.astype(np.uint8)
    if rule.raw_ids:
        table = np.full(256, IGNORED, np.uint8)
        table[list(rule.raw_ids)] = np.arange(len(rule.raw_ids))
        return np.asarray(table[values])
    if rule.reduce_zero:
        return np.where(values == IGNORED, IGNORED, values - np.uint8(1))  # 0 wraps around to 255
    return values


def from_colours(image: Image.Image, rule: PaletteRule, card: Card, name: str) -> tuple[Label, float]:
    """Label of an image in the colours of a palette rule, and the share of pixels whose colour stands for no class."""
    if image.mode in ("1", "L", "LA"):
        raise BenchError(f"{name}: the label is grey where colours are expected; it was packed again, get the original")
    table = _colour_table(palette_table(rule, card))
    label = np.empty((image.height, image.width), np.uint8)
    known = 0
    for top in range(0, image.height, _STRIP):
        bottom = min(top + _STRIP, image.height)
        strip = np.asarray(image.crop((0, top, image.width, bottom)).convert("RGB"))
        values = table[_code((strip >> 7) * np.uint8(255) if rule.binarise else strip)]
        known += int(np.count_nonzero(values >= 0))
        label[top:bottom] = np.where(values < 0, rule.unmatched, values)
    return label, 1 - known / label.size


def _code(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """One number for each colour (..., 3)."""
    red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue)


@lru_cache(maxsize=4)
def _colour_table(colours: tuple[tuple[Colour, int], ...]) -> NDArray[np.int16]:
    """Label value of every colour there is, -1 for those that stand for nothing."""
    table = np.full(1 << 24, -1, np.int16)
    for colour, value in colours:
        table[_code(np.array(colour, np.uint8))] = value
    return table


def _from_mask(image: Image.Image, rule: ThresholdRule) -> Label:
    label = (np.asarray(image.convert("L")) >= rule.at).astype(np.uint8)  # a 1-bit image becomes 0 and 255
    return label if rule.jpeg_quality is None else jpeg_round_trip(label, rule.jpeg_quality)
