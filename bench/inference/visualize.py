"""Label maps as pictures: palette PNG and overlay."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

Colour = tuple[int, int, int]


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Colours for classes without a palette: black for the first, then hues at the golden angle."""
    hues = [(index * 0.618034) % 1 for index in range(count - 1)]
    bright = [colorsys.hsv_to_rgb(hue, 0.75, 0.95 if index % 2 else 0.75) for index, hue in enumerate(hues)]
    return ((0, 0, 0), *((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in bright))[:count]


def palette_png(
    labels: NDArray[np.uint8], colours: Sequence[Colour], text: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """Encode an indexed PNG whose pixel values are the class numbers and whose palette shows them.

    text: metadata.
    """
    picture = Image.fromarray(labels).convert("P")
    entries = [channel for colour in colours for channel in colour]
    if (labels == 255).any():
        entries += [0] * (3 * 256 - len(entries))  # else Pillow stores too few bits
        picture.info["transparency"] = 255
    picture.putpalette(entries)
    return _png(picture, text)


@dataclass(frozen=True)
class Style:
    """Style of a label map over its image.

    colours: one a class, None for `distinct_colours`
    alpha: share of the colour, 0 to 1
    contours: only the borders of regions are drawn, whole
    clear: number of a class that is left out, such as the background
    """

    colours: Sequence[Colour] | None = None
    alpha: float = 0.5
    contours: bool = False
    clear: int | None = None

    def of(self, count: int) -> Sequence[Colour]:
        """Colours of that many classes."""
        return self.colours if self.colours is not None else distinct_colours(count)


PLAIN = Style()


def overlay_png(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str], style: Style = PLAIN
) -> bytes:
    """Draw the label map over the image (H, W, 3), with a legend below. 255: no data, left as it is."""
    colours = style.of(len(names))
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    shown = labels != 255
    if style.clear is not None:
        shown &= labels != style.clear
    alpha = style.alpha
    if style.contours:
        shown &= borders(labels, max(1, min(labels.shape) // 400))
        alpha = 1.0
    blended = image.copy()
    for top in range(0, len(image), 256):  # in parts: floating point takes eight times as much memory
        part = shown[top : top + 256]
        own, colour = image[top : top + 256][part], table[labels[top : top + 256][part]]
        blended[top : top + 256][part] = (own * (1 - alpha) + colour * alpha).astype(np.uint8)
    listed = [(colour, name) for number, (colour, name) in enumerate(zip(colours, names, strict=True))
              if number != style.clear]  # fmt: skip
    drawn = np.concatenate([blended, _legend(blended.shape[1], listed)])
    return _png(Image.fromarray(drawn), compress_level=4)  # half the time of 6, and no larger


def borders(labels: NDArray[np.uint8], width: int = 1) -> NDArray[np.bool_]:
    """Pixels (H, W) at most `width` away, up, down or across, from one of another class."""
    found = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        down, across = labels[step:] != labels[:-step], labels[:, step:] != labels[:, :-step]
        found[step:] |= down
        found[:-step] |= down
        found[:, step:] |= across
        found[:, :-step] |= across
    return found


def _legend(width: int, entries: Sequence[tuple[Colour, str]]) -> NDArray[np.uint8]:
    """Draw a white strip (h, width, 3) with a coloured box and a name per class.

    It has as many lines as it takes, and grows with the image, to be readable when that is shrunk to a screen.
    """
    from PIL import ImageDraw, ImageFont

    size = max(14, width // 70)
    font = ImageFont.load_default(size=size)
    gap, line = size // 2, size + size // 2
    x, y, places = gap, gap, []
    for _, name in entries:
        needed = 2 * size + int(font.getlength(name))
        if x > gap and x + needed > width:
            x, y = gap, y + line
        places.append((x, y))
        x += needed
    strip = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(strip)
    for (left, top), (colour, name) in zip(places, entries, strict=True):
        draw.rectangle((left, top, left + size, top + size), fill=colour, outline="grey")
        draw.text((left + size + gap, top - size // 7), name, fill="black", font=font)
    return np.asarray(strip)


def _png(picture: Image.Image, text: Mapping[str, str] = MappingProxyType({}), compress_level: int = 6) -> bytes:
    buffer, info = io.BytesIO(), PngInfo()
    for name, value in text.items():
        info.add_text(name, value)
    picture.save(buffer, "PNG", pnginfo=info, compress_level=compress_level)
    return buffer.getvalue()
