"""The layout of a dataset's folder, and the pairs of image and label files in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bench.data.archives import File, Tree, archives_in
from bench.data.cards import Card
from bench.data.patterns import COORDINATES, expand, fields_of, fill, find, same_name
from bench.errors import BenchError, check_known, reading

_WRAPPERS = 3  # folders around what was packed, as "extract to folder" makes them
_SHOWN = 4  # names that say what a folder holds


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
    odd: tuple[str, ...] = ()  # what else to know of the folder: archives that were not read, other copies

    def share(self, card: Card) -> float | None:
        """Return how complete it is, 1 for all that is evaluated; None where only the tiles could tell."""
        layout, images = card.layouts[self.layout], len(self.pairs)
        split = layout.split or card.split
        expected = len(split.names) if split else None if layout.cut else card.expected_count
        return min(images / expected, expected / images) if expected else None


def dataset_folders(card: Card, data_root: Path) -> list[Path]:
    """Return the existing folders below the data root that may hold the dataset; in upper or lower case."""
    found = [_existing(data_root, folder) for folder in (*card.folders, card.name)]
    return list(dict.fromkeys(path for path in found if path is not None))


def locate(card: Card, folders: Sequence[Path], layout: str | None = None) -> Found:
    """Find the first layout, in the card's order, that a folder or an archive in its place has; or the one named.

    Where that one is not complete, the most complete of all is taken. Archives are opened only where the files
    beside them are not known to be all.

    Raises DatasetMissing where nothing is found, BenchError for an unknown layout and for an image without a
    label.
    """
    if layout is not None:
        check_known(layout, card.layouts, f"{card.name} has no layout '{layout}'")
    names = [layout] if layout else [name for name, spec in card.layouts.items() if not spec.on_request]
    places = [(name, folder) for name in names for folder in folders]
    not_needed = [Path(item.file).name for item in card.downloads if not item.needed]
    for name, folder in places:
        if folder.is_dir() and archives_in(folder, card.layouts[name].archives, not_needed):
            with suppress(BenchError):  # half unpacked; the rest is in the archives
                unpacked = _find(card, name, Tree(folder))
                if isinstance(unpacked, Found) and unpacked.share(card) == 1:
                    return unpacked
    found: list[Found] = []
    reasons: dict[str, None] = {}
    for name, folder in places:
        tree = Tree(folder, card.layouts[name].archives, not_needed)
        try:
            match = _find(card, name, tree)
        except BenchError as error:  # which archives that have nothing to do with the dataset may have brought
            match = _find(card, name, Tree(folder)) if folder.is_dir() else str(error)
            if not isinstance(match, Found):
                raise
            tree.odd.append(str(error))
        if not isinstance(match, Found):
            reasons |= dict.fromkeys((f"layout {name}: {match}", *tree.refused()))
            continue
        share = match.share(card)
        if not found and share in (None, 1):
            return replace(match, odd=(*match.odd, *tree.odd))
        found.append(replace(match, odd=(*match.odd, *tree.refused())))
    if not found:
        where = ", ".join(map(str, folders))
        raise DatasetMissing(f"{card.name}: nothing to evaluate in {where} ({'; '.join(reasons)}). {card.obtain}")
    best = max(found, key=lambda one: (card.layouts[one.layout].comparable, one.share(card) or 0))
    others = [one for one in found if one is not best and one.pairs[0].image != best.pairs[0].image]
    told = (f"layout {one.layout} in {one.root} has {len(one.pairs):,} images and is left out" for one in others)
    return replace(best, odd=(*best.odd, *told))


def _find(card: Card, name: str, tree: Tree, depth: int = _WRAPPERS) -> Found | str:
    """Return what the layout finds in the tree, or in the only folder that is in it; or why it finds nothing."""
    found = _match(card, name, tree)
    folders = [name for name, file in tree.list("").items() if file is None and name != "__MACOSX"]
    if isinstance(found, str) and depth and len(folders) == 1:
        inner = _find(card, name, tree.at(folders[0]), depth - 1)
        return inner if isinstance(inner, Found) else found
    return found


def _match(card: Card, name: str, tree: Tree) -> Found | str:
    """Return what the layout finds, or the reason why it finds nothing."""
    layout = card.layouts[name]
    images, elsewhere = _first_spelling(tree, layout.image, card)
    if not images:
        return f"no {layout.image}{_there(tree, layout.image)}"
    split = layout.split or card.split
    names = set(split.names) if split else set()
    chosen = [(f, image) for f, image in images if split is None or fill(split.key, f) in names]
    if not chosen:
        assert split is not None
        examples = f"such as '{fill(split.key, images[0][0])}', where '{split.names[0]}' is expected"
        return f"{len(images)} images, none of them in the split that is evaluated ({examples})"
    pairs = _pairs(tree, layout.label, chosen)
    if not pairs:
        return f"images, but no {layout.label}{_there(tree, fill(layout.label, chosen[0][0]))}"
    with_image = {id(pair.label) for pair in pairs}  # a tree has each file once
    labels = [] if split else [label for _, label in _first_spelling(tree, layout.label, card)[0]]
    order = _rank(layout.id or card.id)
    return Found(
        layout=name,
        root=tree.root,
        pairs=tuple(sorted(pairs, key=lambda pair: order(pair.fields))),
        absent=tuple(sorted(names - {fill(split.key, f) for f, _ in chosen})) if split else (),
        extra_labels=tuple(str(label) for label in labels if id(label) not in with_image),
        outside=len(images) - len(chosen),
        odd=(f"images are in {elsewhere} as well, which are left out",) if elsewhere else (),
    )


def _pairs(tree: Tree, pattern: str, images: list[tuple[dict[str, str], File]]) -> list[SourcePair]:
    """Each image with its label; none where no image has one. Raises BenchError where only some have one."""
    pairs = []
    alone = None
    spellings = expand(pattern)
    for fields, image in images:
        places = [fill(spelling, fields) for spelling in spellings]
        label = next(filter(None, map(tree.get, places)), None)
        if label is not None:
            pairs.append(SourcePair(fields, image, label))
        elif alone is None:
            alone = f"image {image} has no label; expected {' or '.join(places)} below {tree.root}"
    if pairs and alone:
        raise BenchError(alone)
    return pairs


def _first_spelling(tree: Tree, pattern: str, card: Card) -> tuple[list[tuple[dict[str, str], File]], str | None]:
    """Return the files of the first spelling of a pattern that has any, and a further spelling that has others."""
    found: list[tuple[dict[str, str], File]] = []
    for spelling in expand(pattern):
        these = [*find(tree, spelling, card.fields)] if not found else [*islice(find(tree, spelling, card.fields), 1)]
        if found and these and id(these[0][1]) not in {id(file) for _, file in found}:
            return found, spelling.rpartition("/")[0] or spelling
        found = found or these
    return found, None


def _there(tree: Tree, pattern: str) -> str:
    """Say what is where the pattern's files should be: the last of its folders that exists, and what it holds."""
    folder, rest = "", expand(pattern)[0].split("/")
    while len(rest) > 1 and (name := same_name(rest[0], tree.list(folder))):
        folder, rest = f"{folder}/{name}".lstrip("/"), rest[1:]
    holds = sorted(tree.list(folder))[:_SHOWN]
    return f"; {folder or 'the folder'} holds {', '.join(holds)}" if holds else ""


def _rank(sample_id: str) -> Callable[[Mapping[str, str]], tuple[list[str], list[int]]]:
    """Return the place of fields in the order of samples: by the scene's, then by the tile's place, row by row."""
    scene = [field for field in fields_of(sample_id) if field not in COORDINATES]
    return lambda fields: (
        [fields[field] for field in scene if field in fields],
        [int(fields[field]) for field in ("y0", "x0") if field in fields],
    )


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
