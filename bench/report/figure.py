"""Label maps side by side, at print quality: image | ground truth | rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import Card
from bench.errors import BenchError
from bench.metrics import IGNORED, confusion, score

IGNORED_COLOUR = (128, 128, 128)
WIDTH = 7.16  # inches: two columns of a paper


@dataclass(frozen=True, eq=False)
class Example:
    """One sample with what rows made of it.

    image: (H, W, 3) uint8. label: (H, W) uint8, 255 where ignored. predictions: label maps (H, W) by row.
    """

    id: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.uint8]]


def draw(examples: Sequence[Example], card: Card, labels: Mapping[str, str], out: Path, note: str = "") -> None:
    """Writes a figure with a line for each example: image, ground truth, and each row with its score on that image.

    labels: what each row is called. out: .png (300 dpi) or .pdf. note: small print below, such as "demo". Raises
    BenchError for another ending and where the file cannot be written.
    """
    if out.suffix.lower() not in (".png", ".pdf"):
        raise BenchError(f"-o {out}: figures are written as .png or .pdf; change the name")
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise BenchError("figures need matplotlib: pip install 'ovss-bench[figures]'") from None

    rows = list(examples[0].predictions)
    height, width = examples[0].image.shape[:2]
    columns = 2 + len(rows)
    panel = WIDTH / columns
    legend_lines = -(-len(card.classes) // 6)
    tall = len(examples) * panel * height / width + 0.25 + 0.22 * legend_lines + (0.15 if note else 0)
    figure = Figure(figsize=(WIDTH, tall), dpi=300, layout="constrained")
    axes = figure.subplots(len(examples), columns, squeeze=False)
    for number, (line, example) in enumerate(zip(axes, examples, strict=True)):
        titles = ["image", "ground truth", *(labels[row] for row in rows)]
        maps = [coloured(label, card) for label in (example.label, *example.predictions.values())]
        for axis, title, picture in zip(line, titles, [example.image, *maps], strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
            if number == 0:
                axis.set_title(title, fontsize=7, pad=2)
        for axis, row in zip(line[2:], rows, strict=True):
            value = score(confusion(example.label, example.predictions[row], len(card.classes)), card.metric)
            axis.text(0.02, 0.02, f"{100 * value:.1f}", fontsize=6, color="white", transform=axis.transAxes,
                      bbox={"facecolor": "black", "alpha": 0.6, "pad": 1, "linewidth": 0})  # fmt: skip
    handles = [
        Patch(facecolor=np.array(colour) / 255, edgecolor="grey", linewidth=0.4, label=name.replace("_", " "))
        for colour, name in zip(card.colours, card.classes, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=6, frameon=False)
    if note:
        figure.suptitle(note, fontsize=6, color="dimgrey")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, metadata={"CreationDate": None} if out.suffix.lower() == ".pdf" else {"Software": None})
    except OSError as error:
        raise BenchError(f"-o {out}: cannot be written ({error.strerror}); give another place") from None


def coloured(label: NDArray[np.uint8], card: Card) -> NDArray[np.uint8]:
    """(H, W, 3) in the card's colours; grey where the label is ignored or no class."""
    table = np.full((256, 3), IGNORED_COLOUR, np.uint8)
    table[: len(card.classes)] = card.colours
    table[IGNORED] = IGNORED_COLOUR
    return table[label]
