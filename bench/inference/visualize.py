"""Label maps as pictures: palette PNG and overlay."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[int, int, int]


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Colours for classes without a palette of their own: black for the first, then hues at the golden angle."""
    hues = [(index * 0.618034) % 1 for index in range(count - 1)]
    bright = [colorsys.hsv_to_rgb(hue, 0.75, 0.95 if index % 2 else 0.75) for index, hue in enumerate(hues)]
    return ((0, 0, 0), *((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in bright))[:count]


def palette_png(labels: NDArray[np.uint8], colours: Sequence[Colour]) -> bytes:
    """An indexed PNG whose pixel values are the class numbers and whose palette shows them."""
    picture = Image.fromarray(labels).convert("P")
    entries = [channel for colour in colours for channel in colour]
    if (labels == 255).any():
        entries += [0] * (3 * 256 - len(entries))  # else Pillow stores too few bits
        picture.info["transparency"] = 255
    picture.putpalette(entries)
    return _png(picture)


def overlay_png(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Sequence[Colour], names: Sequence[str]
) -> bytes:
    """The image (H, W, 3) with the label map laid over it at half strength, and a legend below. 255: no data."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    blended = ((image.astype(np.uint16) + table[labels]) // 2).astype(np.uint8)
    blended[labels == 255] = image[labels == 255]  # no data: left as it is
    return _png(Image.fromarray(np.concatenate([blended, _legend(blended.shape[1], colours, names)])))


def _legend(width: int, colours: Sequence[Colour], names: Sequence[str]) -> NDArray[np.uint8]:
    """A white strip (h, width, 3) with a coloured box and a name for each class, as many lines as it takes."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=14)
    x, y, line, places = 8, 6, 22, []
    for name in names:
        needed = 30 + int(font.getlength(name))
        if x > 8 and x + needed > width:
            x, y = 8, y + line
        places.append((x, y))
        x += needed
    strip = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(strip)
    for (left, top), colour, name in zip(places, colours, names, strict=True):
        draw.rectangle((left, top, left + 14, top + 14), fill=colour, outline="grey")
        draw.text((left + 20, top - 2), name, fill="black", font=font)
    return np.asarray(strip)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
