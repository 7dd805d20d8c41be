"""python -m tools.demo.probe_clip: how well the tiny CLIP segments land cover in scenes that it has not seen."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.cards import load_card
from bench.demo.config import load_demo_backbone
from bench.demo.content import class_table
from bench.demo.render.scenes import HELD_OUT_SEEDS, Image, Label, scene
from bench.inference.postprocess import classify
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.attention import attention, inverse_temperature, self_self
from bench.models.text import Vocabulary, encode
from bench.registry import find_method, load_methods

CARD: Final = "openearthmap"
_KINDS: Final = ("rural", "town", "city", "wild")
_METHODS: Final = ("clip", "maskclip", "sclip", "gem", "clearclip", "segearth-ov")  # plain: no upsampler, λ = 0
_SIDE: Final = 448
SCALE: Final = 50.0

Confusion = NDArray[np.int64]  # (K, K): label, prediction


def held_out(count: int) -> Iterator[tuple[Image, Label]]:
    """Render scenes that no training run sees, with OpenEarthMap's classes less background (0..7) and 255."""
    table = class_table(load_card(CARD)) - np.uint8(1)  # background, index 0, becomes 255
    for index, seed in enumerate(HELD_OUT_SEEDS[:count]):
        image, master = scene(seed, _SIDE, _KINDS[index % len(_KINDS)])
        yield image, table[master]


def probe(count: int) -> dict[str, NDArray[np.float64]]:
    """Name -> IoU (8,) in percent of every method, and of three predictions that need no model.

    random: each class equally often. constant: the best one class. mean colour: the class whose mean colour,
    taken from the labels of these very scenes, is nearest.
    """
    names = load_card(CARD).classes[1:]
    vocabulary = Vocabulary.of(load_card(CARD).vocabularies["cvpr2025"][1:])
    backbone, methods = load_demo_backbone(), load_methods()
    text = encode(backbone, vocabulary)
    classes = torch.tensor(vocabulary.classes)
    rows = [Row(name, find_method(name, methods).build({}), text, classes) for name in _METHODS]
    segmenter = Segmenter(backbone, rows, window=224, stride=112)
    confusions: dict[str, Confusion] = {name: np.zeros((len(names), len(names)), np.int64) for name in _METHODS}
    scenes = list(held_out(count))
    for image, label in scenes:
        for name, scores in segmenter.scores(image).items():
            if isinstance(scores, Exception):
                raise scores
            confusions[name] += confusion_of(label, classify(scores, label.shape, classes, SCALE).classes, len(names))
    return {name: iou(confusion) for name, confusion in (_simple(scenes, len(names)) | confusions).items()}


def iou(confusion: Confusion) -> NDArray[np.float64]:
    """IoU of each class, in percent; nan where a class is neither shown nor predicted."""
    hit = np.diagonal(confusion)
    with np.errstate(invalid="ignore"):
        percent: NDArray[np.float64] = 100 * hit / (confusion.sum(0) + confusion.sum(1) - hit)
    return percent


@torch.inference_mode()
def spread(count: int) -> dict[str, float]:
    """Return over how many tokens (of 197) each attention map of the last block averages.

    That is e to the power of its entropy, mean over heads, tokens and a window of each scene.
    """
    backbone = load_demo_backbone()
    windows = torch.stack([backbone.normalise(torch.from_numpy(image[:224, :224])) for image, _ in held_out(count)])
    trunk = backbone.trunk(windows)
    q, k, v = trunk.qkv(-1)
    maps = {"q·k (CLIP)": attention(q, k)}
    maps |= {f"{name}·{name}": attention(u, u) for name, u in (("q", q), ("k", k), ("v", v))}
    heat = inverse_temperature(trunk, -1)
    maps |= {f"GEM's {name}": self_self(u, heat) for name, u in (("q", q), ("k", k), ("v", v))}
    return {name: float(torch.special.entr(weights).sum(-1).exp().mean()) for name, weights in maps.items()}


def _simple(scenes: Sequence[tuple[Image, Label]], count: int) -> dict[str, Confusion]:
    rng = np.random.default_rng(0)
    images, labels = (np.stack(part) for part in zip(*scenes, strict=True))
    means = np.stack([images[labels == index].mean(0) for index in range(count)])
    nearest = np.argmin(((images[..., None, :] - means) ** 2).sum(-1), -1)
    constant = [confusion_of(labels, np.full_like(labels, index), count) for index in range(count)]
    return {
        "random": confusion_of(labels, rng.integers(count, size=labels.shape), count),
        "constant": max(constant, key=lambda confusion: float(np.nanmean(iou(confusion)))),
        "mean colour": confusion_of(labels, nearest, count),
    }


def confusion_of(label: NDArray[np.uint8], predicted: NDArray[np.integer], count: int) -> Confusion:
    known = label < count
    pairs = label[known].astype(np.int64) * count + predicted[known]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def table(results: Mapping[str, NDArray[np.float64]]) -> str:
    """Format a Markdown table of mIoU and the IoU of each class."""
    names = load_card(CARD).classes[1:]
    lines = [f"| | mIoU | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    lines += [f"| {name} | {np.nanmean(v):.1f} | {' | '.join(f'{x:.1f}' for x in v)} |" for name, v in results.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.probe_clip", description=__doc__)
    parser.add_argument("--scenes", type=int, default=16, help="how many held-out scenes")
    scenes = parser.parse_args(arguments).scenes
    print(table(probe(scenes)))
    print("\nTokens that a map of the last block averages over, of 197:")
    print(", ".join(f"{name} {tokens:.0f}" for name, tokens in spread(scenes).items()))


if __name__ == "__main__":
    main()
