"""Figures 1 and 5 of the SegEarth-OV paper, from what was measured. Figures 4 and 6 are label maps side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.figure import WIDTH, new_figure, save

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")  # Okabe and Ito


def draw_radar(scores: Mapping[str, Mapping[str, float]], out: Path, note: str = "") -> None:
    """Draw figure 1: a spoke for each dataset, a line for each row; per cent, from 0 to the best of the spoke.

    scores: label of a row -> dataset -> fraction, the same datasets for all. Raises BenchError for fewer than three
    datasets, and as `save` does.
    """
    datasets = list(next(iter(scores.values()), {}))
    if len(datasets) < 3:
        raise BenchError(
            f"a radar needs three datasets that all its rows have complete, not {len(datasets)}; run more, or give "
            "fewer rows with --methods"
        )
    best = np.array([max(of[dataset] for of in scores.values()) for dataset in datasets])
    angles = np.linspace(0, 2 * np.pi, len(datasets), endpoint=False)
    figure = new_figure(out, WIDTH / 2, WIDTH / 2 + 0.12 * len(scores))
    axis = figure.add_subplot(projection="polar")
    for number, (label, of) in enumerate(scores.items()):
        values = np.array([of[dataset] for dataset in datasets]) / np.where(best > 0, best, 1)
        axis.plot(np.append(angles, angles[0]), np.append(values, values[0]), color=COLOURS[number % len(COLOURS)],
                  linewidth=1.2, linestyle="-" if number < len(COLOURS) else "--", label=label)  # fmt: skip
    names = [f"{dataset}\n{100 * value:.1f}" for dataset, value in zip(datasets, best, strict=True)]
    axis.set_xticks(angles, names, fontsize=5)
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
