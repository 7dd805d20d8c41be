"""The demo's small copies of the datasets, on disk, in the datasets' own layouts."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from filelock import FileLock

from bench.data.cards import Card, load_card
from bench.demo import writers
from bench.demo.content import CARDS, FILE, PLANS, class_table
from bench.demo.render.scenes import DEMO_SEEDS, Image, Label, scene
from bench.errors import BenchError
from bench.paths import cache_dir

_HERE: Final = Path(__file__).parent
_MADE_BY: Final = (FILE, Path(__file__), _HERE / "content.py", _HERE / "writers.py", *sorted(_HERE.glob("render/*.py")))
_MARKERS: Final = ".demo"


def write_demo(root: Path, datasets: Iterable[str] = CARDS, seed: int = 0) -> tuple[str, ...]:
    """Write the demo's datasets below a data root; returns the names of those that had to be written.

    What an earlier call wrote from the same seed, code and card is left as it is; a half-written or outdated
    copy is replaced. Raises BenchError where a dataset's folder holds something else, which is not touched.
    """
    written = []
    for name in _outdated(root, datasets, seed):
        card = load_card(name)
        folder, marker = root / card.folders[0], root / _MARKERS / name
        if folder.exists():
            if not marker.exists():
                raise BenchError(f"{folder}: not written by the demo, so left alone; give the demo another folder")
            shutil.rmtree(folder)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("being written")
        layout = "original" if "original" in card.layouts else next(iter(card.layouts))
        writers.write_dataset(card, root, dataset_scenes(name, len(PLANS[name].shots), seed), layout)
        marker.write_text(f"{seed} {_version(card)}")
        written.append(name)
    return tuple(written)


def _outdated(root: Path, datasets: Iterable[str], seed: int) -> list[str]:
    """Names of the datasets that are not there as they would be written."""
    markers = {name: root / _MARKERS / name for name in datasets}
    return [
        name
        for name, marker in markers.items()
        if not marker.exists() or marker.read_text() != f"{seed} {_version(load_card(name))}"
    ]


def demo_data_root(names: Iterable[str] = CARDS) -> Path:
    """Return the data root of `run --demo`, in the cache, with the named datasets, as far as the demo has them.

    Of several processes that want them, one writes and the others wait.
    """
    root, wanted = cache_dir() / "demo-data", [name for name in names if name in CARDS]
    if outdated := _outdated(root, wanted, seed=0):
        print(f"bench: rendering {len(outdated)} of the demo's datasets once, into {root}", file=sys.stderr)
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            write_demo(root, wanted)
    return root


def dataset_scenes(name: str, count: int, seed: int) -> Iterator[tuple[Image, Label]]:
    """Images (H, W, 3) and label maps (H, W) in the class indices of a dataset; endless plans start over.

    Where a scene lacks a class that its place in the plan asks for, the next seed is tried.
    """
    card, plan = load_card(name), PLANS[name]
    table = class_table(card)
    rng = np.random.default_rng([seed, CARDS.index(name)])
    for index in range(count):
        shot = plan.shots[index % len(plan.shots)]
        wanted = {card.classes.index(shown) for shown in shot.shows}
        while True:
            drawn = int(rng.integers(DEMO_SEEDS.start, DEMO_SEEDS.stop))
            image, master = scene(drawn, shot.size, shot.kind, plan.false_colour)
            label = table[master]
            if wanted <= set(np.unique(label).tolist()):
                break
        yield _enlarge(image, label, plan.enlarged)


def _enlarge(image: Image, label: Label, factor: float) -> tuple[Image, Label]:
    if factor == 1:
        return image, label
    size = (round(label.shape[1] * factor), round(label.shape[0] * factor))
    larger = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    return larger.astype(np.uint8), cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)


def _version(card: Card) -> str:
    """Hash of the card and of the code that renders and writes."""
    digest = hashlib.sha256(card.model_dump_json().encode())
    for file in _MADE_BY:
        digest.update(file.read_bytes())
    return digest.hexdigest()
