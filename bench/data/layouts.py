"""The layout of a dataset's folder, and the pairs of image and label files in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.data.archives import File, Tree
from bench.data.cards import Card
from bench.data.patterns import COORDINATES, expand, fields_of, fill, find
from bench.errors import BenchError, did_you_mean, reading


class DatasetMissing(BenchError):
    """No file of the dataset was found where it was looked for."""


class SourcePair(NamedTuple):
    """One image file, its label file, and the fields of the layout's patterns."""

    fields: Mapping[str, str]
    image: File
    label: File


@dataclass(frozen=True)
class Found:
    """Files that one layout of a card finds in one folder, sorted by the fields of the sample id."""

    layout: str
    root: Path
    pairs: tuple[SourcePair, ...]
    absent: tuple[str, ...]  # names of the split without a file
    extra_labels: tuple[str, ...]  # labels without an image
    outside: int  # images that the split leaves out


def dataset_folders(card: Card, data_root: Path) -> list[Path]:
    """Return the existing folders below the data root that may hold the dataset; in upper or lower case."""
    found = [_existing(data_root, folder) for folder in (*card.folders, card.name)]
    return list(dict.fromkeys(path for path in found if path is not None))


def locate(card: Card, folders: Sequence[Path], layout: str | None = None) -> Found:
    """Find the first layout, in the card's order, that a folder or an archive in its place has; or the one named.

    Raises DatasetMissing where nothing is found, BenchError for an unknown layout and for an image without a
    label.
    """
    if layout is not None and layout not in card.layouts:
        raise BenchError(f"{card.name} has no layout '{layout}'; {did_you_mean(layout, card.layouts)}")
    reasons = []
    for name in [layout] if layout else [name for name, spec in card.layouts.items() if not spec.on_request]:
        for folder in folders:
            found = _match(card, name, Tree(folder, card.layouts[name].archives))
            if isinstance(found, Found):
                return found
            reasons.append(f"layout {name}: {found}")
    where = ", ".join(map(str, folders))
    raise DatasetMissing(f"{card.name}: nothing to evaluate in {where} ({'; '.join(reasons)}). {card.obtain}")


def _match(card: Card, name: str, tree: Tree) -> Found | str:
    """Return what the layout finds, or the reason why it finds nothing."""
    layout = card.layouts[name]
    images = _first_spelling(tree, layout.image, card)
    if not images:
        return f"no {layout.image}"
    split = layout.split or card.split
    names = set(split.names) if split else set()
    chosen = [(f, image) for f, image in images if split is None or fill(split.key, f) in names]
    if not chosen:
        return f"{len(images)} images, none of them in the split that is evaluated"
    pairs = _pairs(tree, layout.label, chosen)
    if not pairs:
        return f"images, but no {layout.label}"
    with_image = {pair.label for pair in pairs}
    labels = [] if split else [label for _, label in _first_spelling(tree, layout.label, card)]
    return Found(
        layout=name,
        root=tree.root,
        pairs=tuple(sorted(pairs, key=lambda pair: _rank(layout.id or card.id, pair.fields))),
        absent=tuple(sorted(names - {fill(split.key, f) for f, _ in chosen})) if split else (),
        extra_labels=tuple(str(label) for label in labels if label not in with_image),
        outside=len(images) - len(chosen),
    )


def _pairs(tree: Tree, pattern: str, images: list[tuple[dict[str, str], File]]) -> list[SourcePair]:
    """Each image with its label; none where no image has one. Raises BenchError where only some have one."""
    pairs = []
    alone = None
    for fields, image in images:
        places = [fill(spelling, fields) for spelling in expand(pattern)]
        label = next(filter(None, map(tree.get_any_case, places)), None)
        if label is not None:
            pairs.append(SourcePair(fields, image, label))
        elif alone is None:
            alone = f"image {image} has no label; expected {' or '.join(places)} below {tree.root}"
    if pairs and alone:
        raise BenchError(alone)
    return pairs


def _first_spelling(tree: Tree, pattern: str, card: Card) -> list[tuple[dict[str, str], File]]:
    """Return the files of the first spelling of a pattern that has any."""
    found = ([*find(tree, spelling, card.fields)] for spelling in expand(pattern))
    return next(filter(None, found), [])


def _rank(sample_id: str, fields: Mapping[str, str]) -> tuple[list[str], list[int]]:
    """Place in the order of samples: by the scene's fields, then by the tile's place, row by row."""
    scene = [fields[field] for field in fields_of(sample_id) if field in fields and field not in COORDINATES]
    return scene, [int(fields[field]) for field in ("y0", "x0") if field in fields]


def _existing(data_root: Path, folder: str) -> Path | None:
    """Return a folder below another one, upper and lower case taken as equal; None if there is none."""
    if (absolute := Path(folder).expanduser()).is_absolute():
        return absolute if absolute.exists() else None
    path = data_root
    for part in folder.split("/"):
        if not path.is_dir():
            return None
        with reading(path, "correct its permissions"):
            same = sorted(child for child in path.iterdir() if child.name.casefold() == part.casefold())
        exact = path / part
        if not same:
            return None
        path = exact if exact in same else same[0]
    return path
