"""A page with some images of a dataset, their labels laid over them, and the shares of the classes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.data.doubts import known_shares
from bench.data.samples import Sample, SampleSet
from bench.errors import BenchError
from bench.settings import IGNORED

_WIDTH = 480  # pixels of a picture
_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:1020px}img{width:49%}td,th{padding:2px 12px;text-align:left}"
    "i{display:inline-block;width:1em;height:1em;border:1px solid #888}"
)


def sheet(samples: SampleSet, count: int = 8) -> str:
    """Return an HTML page of `count` samples, spread over the dataset; a file that cannot be read is named in it."""
    card = samples.card
    chosen = np.unique(np.linspace(0, len(samples) - 1, count).astype(int)).tolist()
    pictures, counts = [], np.zeros(256, np.int64)
    for index in chosen:
        try:
            sample = samples.read(index)
        except BenchError as error:
            pictures.append(f"<p>{escape(str(error))}</p>")
            continue
        counts += np.bincount(sample.label.ravel(), minlength=256)
        pictures.append(_figure(sample, card.colours))
    rows = "".join(_rows(samples, counts))
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(card.title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(card.title)}</h1><p>{len(chosen)} of {len(samples):,} images of {escape(str(samples.root))} "
        f"(layout {escape(samples.layout)}); on the right with their labels.</p>"
        f"<table><tr><th><th>class<th>of the pixels<th>in the real set</tr>{rows}</table>{''.join(pictures)}\n"
    )


def _rows(samples: SampleSet, counts: NDArray[np.int64]) -> Iterator[str]:
    card, known = samples.card, known_shares(samples.card)
    total = max(1, int(counts[:IGNORED].sum()))
    for value, name in enumerate(card.classes):
        colour = "#{:02x}{:02x}{:02x}".format(*card.colours[value])
        real = "?" if known is None else f"{known[value]:.1%}"
        share = f"{counts[value] / total:.1%}"
        yield f"<tr><td><i style='background:{colour}'></i><td>{value} {escape(name)}<td>{share}<td>{real}</tr>"
    yield f"<tr><td><td>ignored<td>{counts[IGNORED] / max(1, counts.sum()):.1%} of all<td></tr>"


def _figure(sample: Sample, colours: tuple[tuple[int, int, int], ...]) -> str:
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    scale = _WIDTH / sample.label.shape[1]
    size = (_WIDTH, max(1, round(sample.label.shape[0] * scale)))
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    label = cv2.resize(sample.label, size, interpolation=cv2.INTER_NEAREST)
    mixed = (image.astype(np.uint16) + table[label]) // 2
    laid = np.where(label[..., None] == IGNORED, image // 4, mixed).astype(np.uint8)
    return f"<h3>{escape(sample.id)}</h3>{_picture(image.astype(np.uint8))} {_picture(laid)}"


def _picture(pixels: NDArray[np.uint8]) -> str:
    _, packed = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 88))
    return f"<img src='data:image/jpeg;base64,{base64.b64encode(packed.tobytes()).decode()}'>"
