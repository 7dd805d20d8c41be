"""Figures at print quality: image | ground truth | rows side by side, and Figures 1 and 5 of the SegEarth-OV paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import Card
from bench.errors import BenchError, writing
from bench.metrics import confusion, score
from bench.report.comparison import Comparison
from bench.settings import IGNORED

IGNORED_COLOUR = (128, 128, 128)
WIDTH = 7.16  # inches: two columns of a paper
DIFFERING = ((245, 245, 245), (0, 114, 178), (213, 94, 0), (70, 70, 70))  # both right, the first, the second, neither
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")  # Okabe and Ito


@dataclass(frozen=True, eq=False)
class Example:
    """One sample with the predictions of some rows.

    image: (H, W, 3) uint8.
    label: (H, W) uint8, 255 where ignored.
    predictions: label maps (H, W) by row.
    """

    id: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class FigureBlock:
    """Samples of one dataset, a line each, with a legend of its classes below.

    labels: what each row is called.
    differing: two of its rows; a last panel shows where they differ.
    """

    examples: Sequence[Example]
    card: Card
    labels: Mapping[str, str]
    differing: tuple[str, str] | None = None


def draw_blocks(blocks: Sequence[FigureBlock], out: Path, note: str = "") -> None:
    """Write a figure of samples of several datasets, one block below the other.

    Each example is a line: image, ground truth, and each row with its score on that image.
    out: .png (300 dpi) or .pdf.
    note: small print above, such as "demo".
    Raises BenchError for another ending and where the file cannot be written.
    """
    heights = [_height(block) for block in blocks]
    figure = new_figure(out, WIDTH, sum(heights) + (0.15 if note else 0))
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, (part, block) in enumerate(zip(parts, blocks, strict=True)):
        _draw_block(part, block, titles=number == 0)
    if note:
        figure.suptitle(note, fontsize=6, color="dimgrey")
    save(figure, out)


def new_figure(out: Path, width: float, height: float) -> Any:
    """Make an empty figure, its size in inches, that `save` is to write to `out`.

    Raises BenchError for an ending other than .png and .pdf.
    """
    if out.suffix.lower() not in (".png", ".pdf"):
        raise BenchError(f"-o {out}: figures are written as .png or .pdf; change the name")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchError("figures need matplotlib: pip install 'ovss-bench[figures]'") from None
    return Figure(figsize=(width, height), dpi=300, layout="constrained")


def save(figure: Any, out: Path) -> None:
    """Write the figure, the same bytes each time.

    Raises BenchError where that cannot be done.
    """
    with writing(f"-o {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, metadata={"CreationDate": None} if out.suffix.lower() == ".pdf" else {"Software": None})


def _height(block: FigureBlock) -> float:
    """Return the height of a block in inches."""
    height, width = block.examples[0].image.shape[:2]
    panel = WIDTH / (2 + len(block.examples[0].predictions) + (block.differing is not None))
    tall: float = len(block.examples) * panel * height / width
    return tall + 0.25 + 0.22 * -(-(len(block.card.classes) + 3 * (block.differing is not None)) // 6)


def _draw_block(part: Any, block: FigureBlock, titles: bool) -> None:
    from matplotlib.patches import Patch

    card, rows, differing = block.card, list(block.examples[0].predictions), block.differing
    heads = [
        "image",
        "ground truth",
        *(block.labels[row] for row in rows),
        *(["where they differ"] if differing else []),
    ]
    axes = part.subplots(len(block.examples), len(heads), squeeze=False)
    for number, (line, example) in enumerate(zip(axes, block.examples, strict=True)):
        maps = [coloured(label, card) for label in (example.label, *example.predictions.values())]
        if differing:
            maps.append(differences(example.label, *(example.predictions[row] for row in differing)))
        for axis, head, picture in zip(line, heads, [example.image, *maps], strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
            if number == 0 and titles:
                axis.set_title(head, fontsize=7, pad=2)
        for axis, row in zip(line[2 : 2 + len(rows)], rows, strict=True):
            value = score(confusion(example.label, example.predictions[row], len(card.classes)), card.metric)
            axis.text(0.02, 0.02, f"{100 * value:.1f}", fontsize=6, color="white", transform=axis.transAxes,
                      bbox={"facecolor": "black", "alpha": 0.6, "pad": 1, "linewidth": 0})  # fmt: skip
    named = [*zip(card.colours, (name.replace("_", " ") for name in card.classes), strict=True)]
    if differing:
        named += zip(
            DIFFERING[1:], [*(f"only {block.labels[row]} right" for row in differing), "both wrong"], strict=True
        )
    handles = [
        Patch(facecolor=np.array(colour) / 255, edgecolor="grey", linewidth=0.4, label=name) for colour, name in named
    ]
    part.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=6, frameon=False)


def coloured(label: NDArray[np.uint8], card: Card) -> NDArray[np.uint8]:
    """Return the label map (H, W, 3) in the card's colours; grey where the label is ignored or no class."""
    table = np.full((256, 3), IGNORED_COLOUR, np.uint8)
    table[: len(card.classes)] = card.colours
    table[IGNORED] = IGNORED_COLOUR
    return table[label]


def differences(label: NDArray[np.uint8], first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) of where one of two label maps (H, W) is right, in the colours DIFFERING."""
    right = first == label, second == label
    picture: NDArray[np.uint8] = np.array(DIFFERING, np.uint8)[np.select([right[0] & right[1], *right], [0, 1, 2], 3)]
    picture[label == IGNORED] = IGNORED_COLOUR
    return picture


def draw_gains(found: Comparison, labels: Mapping[str, str], head: Callable[[str], str], out: Path) -> None:
    """Draw first - second of a comparison, a line for each dataset, in points with 95 % intervals, and their mean.

    A dot is filled where the difference is none of luck: p by Holm at most 0.05.
    labels, head: what rows and datasets are called. Raises BenchError for no dataset, and as `save` does.
    """
    if found.over_datasets is None:
        reasons = "; ".join(f"{dataset}: {reason}" for dataset, reason in found.left_out.items())
        raise BenchError(f"{found.first} and {found.second} share no dataset that may be compared ({reasons})")
    lines = [(head(pair.dataset), pair.interval, pair.adjusted, "o") for pair in found.pairs]
    over = found.over_datasets
    lines += [(f"mean of {len(lines)}", over.interval, over.adjusted, "D")] if len(lines) > 1 else []
    figure = new_figure(out, WIDTH / 2, 0.6 + 0.16 * len(lines))
    axis = figure.add_subplot()
    for place, (_, interval, p, marker) in enumerate(lines):
        colour = COLOURS[0] if interval.estimate >= 0 else COLOURS[1]
        if interval.known:
            axis.plot([100 * interval.low, 100 * interval.high], [place] * 2, color=colour, linewidth=1)
        axis.plot(100 * interval.estimate, place, marker, color=colour, markersize=4, markeredgewidth=1,
                  markerfacecolor=colour if p <= 0.05 else "white")  # fmt: skip
    axis.axvline(0, color="dimgrey", linewidth=0.6)
    axis.set_yticks(range(len(lines)), [name for name, *_ in lines], fontsize=6)
    axis.invert_yaxis()
    axis.tick_params(axis="x", labelsize=6)
    axis.spines[["top", "right"]].set_visible(False)
    first, second = (labels.get(row, row) for row in (found.first, found.second))
    axis.set_xlabel(f"{first} − {second}, points (95 %; filled: p ≤ 0.05 after Holm)", fontsize=6)
    if found.demo:
        axis.set_title("demo: says nothing about the methods", fontsize=5, color="dimgrey")
    save(figure, out)


def draw_radar(scores: Sequence[tuple[str, Mapping[str, float]]], out: Path, note: str = "") -> None:
    """Draw figure 1: a spoke for each dataset, a line for each row; per cent, from 0 to the best of the spoke.

    scores: of each row its label, and dataset -> fraction, the same datasets for all. Raises BenchError for fewer than
    three datasets, and as `save` does.
    """
    datasets = list(scores[0][1]) if scores else []
    if len(datasets) < 3:
        raise BenchError(
            f"a radar needs three datasets that all its rows have complete, not {len(datasets)}; run more, or give "
            "fewer rows with --methods"
        )
    best = np.array([max(of[dataset] for _, of in scores) for dataset in datasets])
    angles = np.linspace(0, 2 * np.pi, len(datasets), endpoint=False)
    figure = new_figure(out, WIDTH / 2, 0.42 * WIDTH + 0.12 * len(scores))
    axis = figure.add_subplot(projection="polar")
    for number, (label, of) in enumerate(scores):
        values = np.array([of[dataset] for dataset in datasets]) / np.where(best > 0, best, 1)
        axis.plot(np.append(angles, angles[0]), np.append(values, values[0]), color=COLOURS[number % len(COLOURS)],
                  linewidth=1.2, linestyle="-" if number < len(COLOURS) else "--", label=label)  # fmt: skip
    names = [f"{dataset}\n{100 * value:.1f}" for dataset, value in zip(datasets, best, strict=True)]
    axis.set_xticks(angles, names, fontsize=5)
    axis.tick_params(pad=-1)
    for name, across in zip(axis.get_xticklabels(), np.cos(angles), strict=True):  # beside the circle, not across it
        name.set_horizontalalignment("center" if abs(across) < 0.3 else "left" if across > 0 else "right")
    axis.set_yticks([0.25, 0.5, 0.75, 1.0], [""] * 4)
    axis.set_ylim(0, 1.05)
    figure.legend(loc="outside lower center", ncols=3, fontsize=5, frameon=False)
    if note:
        figure.suptitle(note, fontsize=5, color="dimgrey")
    save(figure, out)


def draw_bias(examples: Sequence[Mapping[str, NDArray[Any]]], out: Path, note: str = "") -> None:
    """Draw figure 5: a line for each image, with its pictures by title, and how the values of the last two are spread.

    The last two are the similarity with a word before and after the bias was alleviated.
    """
    height, width = examples[0]["image"].shape[:2]
    figure = new_figure(out, WIDTH, len(examples) * (WIDTH / 5 * height / width + 0.1) + 0.3)
    axes = figure.subplots(len(examples), 5, squeeze=False)
    for number, (line, pictures) in enumerate(zip(axes, examples, strict=True)):
        for axis, (title, picture) in zip(line[:4], pictures.items(), strict=True):
            axis.imshow(picture, cmap="viridis")
            axis.set_axis_off()
            if number == 0:
                axis.set_title(title, fontsize=7, pad=2)
        before, after = list(pictures.values())[-2:]
        for values, label, colour in ((before, "before", COLOURS[1]), (after, "after", COLOURS[0])):
            spread = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
            line[4].hist(spread.ravel(), bins=50, range=(0, 1), histtype="step", color=colour, label=label)
        line[4].set_yticks([])
        line[4].tick_params(labelsize=5)
        if number == 0:
            line[4].set_title("values, stretched", fontsize=7, pad=2)
            line[4].legend(fontsize=5, frameon=False)
    if note:
        figure.suptitle(note, fontsize=6, color="dimgrey")
    save(figure, out)
