"""python -m tools.demo.probe_upsamplers: what each demo upsampler adds to M-SA, against bilinear enlargement."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.cards import load_card
from bench.demo.config import WEIGHTS, load_demo_backbone
from bench.inference.postprocess import classify
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.text import Vocabulary, encode
from bench.models.upsamplers import load_upsampler
from bench.registry import find_method, load_methods
from tools.demo.probe_clip import CARD, SCALE, Confusion, confusion_of, held_out, iou

BILINEAR: Final = "bilinear"
_NEAR: Final = 4  # pixels


class SceneCounts(NamedTuple):
    """Confusions (K, K) of one scene: of all labelled pixels, and of those near a border of the label map."""

    everywhere: Confusion
    at_borders: Confusion


def near_borders(label: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with another class in the square of 9 × 9 pixels around them, (H, W)."""
    square = np.ones((2 * _NEAR + 1, 2 * _NEAR + 1), np.uint8)
    differs: NDArray[np.bool_] = cv2.dilate(label, square) != cv2.erode(label, square)
    return differs


def probe(files: Mapping[str, Path], scenes: int) -> dict[str, list[SceneCounts]]:
    """Name -> counts of each held-out scene, for bilinear enlargement and each upsampler's file."""
    vocabulary = Vocabulary.of(load_card(CARD).vocabularies["cvpr2025"][1:])
    backbone, method = load_demo_backbone(), find_method("segearth-ov", load_methods()).build({})
    text, classes = encode(backbone, vocabulary), torch.tensor(vocabulary.classes)
    rows = [Row(BILINEAR, method, text, classes)]
    for name, file in files.items():
        rows.append(Row(name, method, text, classes, upsampler=load_upsampler(None, file, backbone.dim)))
    segmenter = Segmenter(backbone, rows, window=224, stride=112)
    count = len(vocabulary.classes)
    counts: dict[str, list[SceneCounts]] = {row.name: [] for row in rows}
    for image, label in held_out(scenes):
        at_borders = np.where(near_borders(label), label, np.uint8(255))
        for name, scores in segmenter.scores(image).items():
            if isinstance(scores, Exception):
                raise scores
            found = classify(scores, label.shape, classes, SCALE).classes
            counts[name].append(SceneCounts(confusion_of(label, found, count), confusion_of(at_borders, found, count)))
    return counts


def accuracy(confusion: Confusion) -> float:
    """Share of the pixels that are right, in percent."""
    return float(100 * np.trace(confusion) / confusion.sum())


MEASURES: Final[dict[str, Callable[[SceneCounts], float]]] = {
    "mIoU": lambda counts: float(np.nanmean(iou(counts.everywhere))),
    "pixel accuracy": lambda counts: accuracy(counts.everywhere),
    "accuracy near borders": lambda counts: accuracy(counts.at_borders),
}


def table(counts: Mapping[str, Sequence[SceneCounts]]) -> str:
    """Format a Markdown table; gains are over bilinear, with the 95 % interval of a bootstrap over scenes."""
    lines = ["| | " + " | ".join(f"{name} | gain" for name in MEASURES) + " |", "|---" * 7 + "|"]
    scenes = len(counts[BILINEAR])
    weights = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), size=1000)
    weights = np.concatenate([np.ones((1, scenes), np.int64), weights])  # the first: each scene once
    base = _measured(counts[BILINEAR], weights)
    for name, of_scenes in counts.items():
        values = _measured(of_scenes, weights)
        cells = []
        for value, gains in zip(values[0], (values - base).T, strict=True):
            low, high = np.percentile(gains[1:], (2.5, 97.5))
            cells += [f"{value:.1f}", "" if name == BILINEAR else f"{gains[0]:+.1f} [{low:+.1f}, {high:+.1f}]"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(scenes: Sequence[SceneCounts], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the measures (draws, 3) of scenes that count as often as `weights` (draws, scenes) says."""
    everywhere, at_borders = (np.tensordot(weights, np.stack(part), 1) for part in zip(*scenes, strict=True))
    totals = map(SceneCounts, everywhere, at_borders)
    return np.array([[measure(total) for measure in MEASURES.values()] for total in totals])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.probe_upsamplers", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of NAME.safetensors")
    parser.add_argument("--scenes", type=int, default=20, help="how many held-out scenes")
    options = parser.parse_args(arguments)
    files = {file.stem: file for file in sorted(options.weights.glob("*.safetensors")) if file.stem != "tiny-clip"}
    print(table(probe(files, options.scenes)))


if __name__ == "__main__":
    main()
