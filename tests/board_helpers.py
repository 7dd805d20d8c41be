"""Submissions made by hand: whole results of rows on a shipped dataset, in the folder of a board."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store_helpers import certain, names

from bench.config import base_name, load_config
from bench.data.cards import load_card
from bench.data.prepared import recipe
from bench.registry import load_methods, source_hash
from bench.runtime.sources import hash_of
from bench.store.record import Info, ResultSpec
from bench.store.store import Store

DATASET = "whu_aerial"
CONFIG, METHODS = load_config(), load_methods()
GOOD = [[40_000, 0], [0, 40_000]]
SOURCE = """from bench.api import method


@method("mine")
def mine(trunk):
    return trunk
"""


def git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def new_board(folder: Path) -> Path:
    (folder / "submissions").mkdir(parents=True)
    (folder / "submissions/README.md").write_text("# Submissions\n")
    return folder


def submitted(folder: Path, row: str, images: Sequence[Any] = (GOOD, GOOD), **changes: Any) -> Path:
    """Write a result of the row into a results folder, such as that of a submission; return the cell's folder.

    changes: of `settings`, of `inputs` (None: it lacks it), of the record's `info`; `dataset` and `cards`, `classes`,
    `ids` and `scene` of the images, `source` of a plug-in, options of the `store`.
    """
    card, method = load_card(changes.pop("dataset", DATASET), changes.pop("cards", ())), METHODS.get(base_name(row))
    source = changes.pop("source", None if method else SOURCE)
    settings = CONFIG.settings_of(row, card, method.defaults if method else CONFIG.row(row))
    settings = settings.model_copy(update=changes.pop("settings", {}))
    code = hash_of([source.encode()]) if source else source_hash(method.file) if method else ""
    label, defaults = (CONFIG.row(row).title(method.label), method.stated_defaults) if method else (row, {})
    info = {"label": label, "layout": "original", "method_defaults": defaults, **changes.pop("info", {})}
    inputs = {"weights": "aa", "plug-in": code, "card": recipe(card, info["layout"]), "dtype": "fp32"}
    inputs |= changes.pop("inputs", {})
    spec = ResultSpec(
        settings,
        {name: value for name, value in inputs.items() if value is not None},
        [(name, changes.get("scene")) for name in changes.pop("ids", [name for name, _ in names(len(images))])],
        changes.pop("classes", card.classes),
        card.metric,
        Info(**info),
        None,
        card.expected_count,
        card.facts(card.vocabularies[settings.vocabulary]),
    )
    store = Store(folder, **changes.pop("store", {}))
    writer = store.open(spec)
    for index, image in enumerate(images):
        writer.add(index, *certain(image))
    writer.finish(seconds=1.0)
    if source and row == settings.row:
        place = folder / "methods" / settings.method
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{settings.method}.py").write_text(source)
    assert not {*changes} - {"scene"}
    return store.place(settings.row, card.name)
