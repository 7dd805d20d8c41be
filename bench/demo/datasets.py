"""The demo's small copies of the datasets, on disk, in the datasets' own layouts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bench.data.cards import Card, load_card
from bench.demo import plans as sets
from bench.demo import writers
from bench.demo.plans import dataset_scenes, default_count
from bench.demo.render import canvas, landmarks, recipes, scenes, structures, taxonomy, textures
from bench.demo.render.taxonomy import CARDS
from bench.errors import BenchError
from bench.paths import cache_dir

_MADE_BY: Final = (canvas, landmarks, recipes, scenes, sets, structures, taxonomy, textures, writers)
_MARKERS: Final = ".demo"


def write_demo(root: Path, datasets: Iterable[str] = CARDS, seed: int = 0) -> tuple[str, ...]:
    """Write the demo's datasets below a data root; returns the names of those that had to be written.

    What an earlier call wrote from the same seed, code and card is left as it is; a half-written or outdated
    copy is replaced. Raises BenchError where a dataset's folder holds something else, which is not touched.
    """
    written = []
    for name in datasets:
        card = load_card(name)
        folder, marker = root / card.folders[0], root / _MARKERS / name
        version = f"{seed} {_version(card)}"
        if marker.exists() and marker.read_text() == version:
            continue
        if folder.exists():
            if not marker.exists():
                raise BenchError(f"{folder}: not written by the demo, so left alone; give the demo another folder")
            shutil.rmtree(folder)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("being written")
        layout = "original" if "original" in card.layouts else next(iter(card.layouts))
        writers.write_dataset(card, root, dataset_scenes(name, default_count(name), seed), layout)
        marker.write_text(version)
        written.append(name)
    return tuple(written)


def demo_data_root(names: Iterable[str] = CARDS) -> Path:
    """Return the data root of `run --demo`, in the cache, with the named datasets, as far as the demo has them."""
    root = cache_dir() / "demo-data"
    write_demo(root, [name for name in (load_card(name).name for name in names) if name in CARDS])
    return root


def _version(card: Card) -> str:
    """Hash of the card and of the code that renders and writes."""
    digest = hashlib.sha256(card.model_dump_json().encode())
    for module in _MADE_BY:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
