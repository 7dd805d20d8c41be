"""``bench datasets new``: a card from a folder of images and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias, cast

import numpy as np
import yaml
from PIL import Image
from pydantic import ValidationError

from bench.data.cards import Card, card_names
from bench.data.images import Depth, read_bands, tiff_bands
from bench.data.labels import open_label
from bench.data.layouts import locate
from bench.data.patterns import fields_of
from bench.errors import BenchError, few, validation_message
from bench.runtime.atomic import write_asked
from bench.settings import IGNORED

UNNAMED: Final = re.compile(r"class_\d+")
"""Names that classes get here, until somebody writes better ones."""

_ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
_LABEL = re.compile(r"label|mask|(?<![a-z])gt(?![a-z])|annot|ann_dir|truth|target|seg|index", re.IGNORECASE)
_PATTERNS = 60  # the most frequent ones, of which two are looked for that belong together
_LABELS = 500  # decoded, spread evenly
_SEED = 3  # files of each kind that tell images from labels
_COLOURS = 256  # a file with more holds a picture
_PLAIN = {"1": "L", "LA": "L", "PA": "L", "RGBA": "RGB"}  # modes without what says nothing of classes
_END = "...\n"  # of a YAML document that is a plain scalar
_CLEAR = 0.95  # share of black and white in a mask that was compressed with loss

Value: TypeAlias = int | tuple[int, int, int]
"""A grey value or index, or a colour."""


@dataclass
class Findings:
    """Images of a folder with their labels, and what these hold.

    image, label: path patterns; pairs: the files that both spell; alone: images without a label
    pixels, present: of each value, and labels that hold it; classes: the value of each class
    colours: the palette of the labels, red, green, blue of each index; stretch: images have 16 bits; bands: have more
    than three bands
    """

    image: str
    label: str
    pairs: dict[tuple[str, ...], tuple[str, str]]
    alone: int
    looked_at: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    pixels: Counter[Value] = field(default_factory=Counter)
    present: Counter[Value] = field(default_factory=Counter)
    classes: list[Value] = field(default_factory=list)
    colours: list[int] | None = None
    stretch: bool = False
    bands: bool = False

    def share(self, value: Value) -> str:
        """Share of the pixels that have a value, in per cent."""
        return f"{self.pixels[value] / sum(self.pixels.values()):.1%}"

    def assumed(self) -> Iterator[str]:
        """Say what the card takes for granted of the images, and under which key."""
        if self.alone:
            yield f"`split`: images without a label are left out ({self.alone:,})"
        if self.bands:
            yield "`bands`: images have more than three; the first three are taken for red, green and blue"
        if self.stretch:
            yield "`stretch`: images have more than 8 bits; the percentiles 2 and 98 of each become 0 and 255"


def new_card(
    name: str,
    cards: Path,
    folder: Path,
    data_root: Path,
    classes: Sequence[Sequence[str]] = (),
    ignored: Sequence[str] = (),
) -> tuple[Card, Findings]:
    """Write the card of a folder with images and labels; return it with what was found.

    name: of the dataset, and of its card in the folder `cards`
    classes: words of each class, in the order of the labels' values; none: to be written by hand
    ignored: values that are no class, as `spelled` has them

    Raises BenchError where there is such a card, where no pairs are found, where labels cannot be read or hold no
    classes, and where there are more or fewer classes than values.
    """
    file = cards / f"{name}.yaml"
    if not re.fullmatch("[a-z0-9_]{1,64}", name):
        raise BenchError(f"{name}: names of datasets are made of at most 64 of a to z, 0 to 9 and _")
    if file.exists() or name in card_names():
        raise BenchError(f"{name}: there is a card of that name; give another" + f", or remove {file}" * file.exists())
    found = find_pairs(folder)
    _look(folder, found)
    labels, found.classes = _rule(found, ignored)
    if classes and len(classes) != len(found.classes):
        shown = few([f"{spelled(value)} ({found.share(value)})" for value in found.classes])
        shades = ", or save masks again without shades of grey" if len(found.classes) > 10 * len(classes) else ""
        raise BenchError(
            f"--classes names {len(classes)} classes, the labels hold {len(found.classes)} values: {shown}; name each, "
            f"or leave values out with --ignore{shades}"
        )
    text = _text(name, _below(folder, data_root), found, labels, classes)
    try:
        card = Card.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise BenchError(validation_message(file, error)) from None
    if len(locate(card, [folder]).pairs) != len(found.pairs):
        raise BenchError(
            f"{folder}: file names that patterns cannot tell apart; rename them, or write the card by hand"
        )
    write_asked(file, text.encode())
    return card, found


def find_pairs(folder: Path) -> Findings:
    """Find the images below a folder and their labels: files of one name but for a folder, the ending, or affixes.

    Of two such kinds of files, that with fewer colours holds the labels. Raises BenchError where there are none.
    """
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder; give the folder of images and labels, unpacked")
    paths = [PurePosixPath(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in paths if path.suffix.lower() in _ENDINGS and not path.name.startswith(".")]
    patterns: dict[str, dict[tuple[str, ...], str]] = {}
    for file in files:
        for pattern, fields in _spellings(file):
            patterns.setdefault(pattern, {})[fields] = str(file)
    frequent = sorted(patterns, key=lambda name: (-len(patterns[name]), len(fields_of(name)), len(name), name))
    together: list[tuple[int, str, str]] = []
    for one, other in combinations(frequent[:_PATTERNS], 2):
        shared = patterns[one].keys() & patterns[other].keys() if fields_of(one) == fields_of(other) else set()
        if {patterns[one][key] for key in shared}.isdisjoint(patterns[other][key] for key in shared):
            together.append((len(shared), one, other))
    most = max((count for count, *_ in together), default=0)
    if not most:
        raise BenchError(
            f"{folder}: {len(files):,} images, but no two of one name, such as images/a.png and labels/a.png, or a.jpg "
            "and a_mask.png; rename them, or write the card by hand"
        )
    best = [(one, other) for count, one, other in together if count == most]
    looks = {name: _colours(folder, list(patterns[name].values())) for pair in best for name in pair}
    ordered = [(one, other) if looks[one] > looks[other] else (other, one) for one, other in best]
    image, label = min(ordered, key=lambda pair: _rank(pair[0], pair[1], looks))
    if looks[label] > _COLOURS:
        raise BenchError(f"{folder}: {image} and {label} both hold pictures: {_refused(folder, patterns[label])}")
    pairs = {key: (file, patterns[label][key]) for key, file in patterns[image].items() if key in patterns[label]}
    alone = set(patterns[image].values()) - {file for pair in pairs.values() for file in pair}
    return Findings(image, label, pairs, len(alone))


def spelled(value: Value) -> str:
    """Spell a value as on the command line: a number, or a colour in hexadecimal digits."""
    return f"{value}" if isinstance(value, int) else "{:02x}{:02x}{:02x}".format(*value)


def _spellings(file: PurePosixPath) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Patterns that spell a path, each with its fields: one folder may be a field, the name may have affixes."""
    folders, stem, ending = file.parts[:-1], file.stem, file.suffix.lower()
    names = [("", stem, "")]
    names += [("", stem[: at.start()], stem[at.start() :]) for at in re.finditer(r"[_\-. ](?=[A-Za-z])", stem)][-3:]
    names += [(stem[: at.end()], stem[at.end() :], "") for at in re.finditer(r"[_\-. ]", stem)][:2]
    for place in (None, *range(len(folders))):
        parts = ["{part}" if at == place else folder for at, folder in enumerate(folders)]
        group = () if place is None else (folders[place],)
        for before, name, after in names:
            if name:
                yield "/".join([*parts, f"{before}{{n}}{after}{ending}"]), (*group, name)


def _rank(image: str, label: str, looks: Mapping[str, int]) -> tuple[bool, bool, bool, int, int, int]:
    """Order of two patterns as those of images and labels, the likeliest first."""
    of_image, of_label = ({*one.split("/")} - {*other.split("/")} for one, other in ((image, label), (label, image)))
    named = not _LABEL.search(" ".join(of_label)), bool(_LABEL.search(" ".join(of_image)))
    return (looks[label] > _COLOURS, *named, len(fields_of(image)), looks[label], len(image) + len(label))


def _colours(folder: Path, files: Sequence[str]) -> int:
    """Return how many colours or grey values a file has, the most of some; more than any label for pictures."""
    try:
        return max(len(_values(_opened(folder / file), folder / file)) for file in files[:_SEED])
    except BenchError:  # more colours, bands or bits than labels have, or unreadable
        return _COLOURS + 1


def _refused(folder: Path, files: Mapping[tuple[str, ...], str]) -> str:
    """Return why the first of some files that is no label is none."""
    for file in files.values():
        try:
            _values(_opened(folder / file), folder / file)
        except BenchError as error:
            return str(error)
    return "no labels were found"


def _opened(file: Path) -> Image.Image:
    return open_label(file.read_bytes(), str(file))


def _look(folder: Path, found: Findings) -> None:
    """Fill in what the labels hold, of some where there are many, and whether the images have more than 8 bits."""
    pairs = list(found.pairs.values())
    for _, label in pairs[:: -(-len(pairs) // _LABELS)]:
        picture = _opened(folder / label)
        found.looked_at += 1
        found.sizes[f"{picture.width}x{picture.height}"] += 1
        if picture.mode == "P" and found.colours is None:
            found.colours = picture.getpalette()
        values = _values(picture, folder / label)
        found.pixels.update(values)
        found.present.update(values.keys())
    image = folder / pairs[0][0]
    data = image.read_bytes()
    found.bands = tiff_bands(data)[0] > 3
    bands = (1, 2, 3) if found.bands else None
    try:
        read_bands(data, str(image), bands)
    except BenchError:
        read_bands(data, str(image), bands, Depth((2, 98)))
        found.stretch = True


def _values(picture: Image.Image, file: Path) -> dict[Value, int]:
    """Grey values or colours of a label, and how many pixels have each."""
    if file.suffix.lower() in (".jpg", ".jpeg"):
        if not _is_mask(picture):
            raise BenchError(f"{file}: classes are lost where labels are compressed as JPEG; get them as PNG")
        picture = picture.convert("L").point([0] * 128 + [255] * 128)
    plain = picture.convert(_PLAIN.get(picture.mode, picture.mode))
    found = cast("list[tuple[int, Value]] | None", plain.getcolors(_COLOURS))
    if found is None:
        raise BenchError(f"{file}: more than {_COLOURS} colours; it is an overlay, or was compressed with loss")
    return {value: count for count, value in sorted(found, key=lambda one: one[1])}


def _is_mask(picture: Image.Image) -> bool:
    """Return whether a picture is black and white, but for what a JPEG makes of it."""
    grey, colours = np.asarray(picture.convert("L")), np.asarray(picture.convert("RGB")).astype(int)
    return bool(((grey < 32) | (grey > 223)).mean() > _CLEAR and np.ptp(colours, axis=-1).max() < 64)


def _rule(found: Findings, ignored: Sequence[str]) -> tuple[dict[str, Any], list[Value]]:
    """How the labels store classes, and the value of each class."""
    numbers = {value for value in found.pixels if isinstance(value, int)}
    colours = {value for value in found.pixels if isinstance(value, tuple)}
    if numbers and colours:
        raise BenchError(f"{found.label}: some labels are grey and some have colours; convert them to one kind")
    known: dict[str, Value] = {spelled(value): value for value in sorted(numbers) + sorted(colours)}
    names = [text.lower().removeprefix("#") for text in ignored]
    for name in names:
        if name not in known:
            raise BenchError(f"--ignore {name}: the labels hold {few(list(known))}")
    if numbers == {0, IGNORED} and not names:
        return {"rule": "threshold", "at": 128}, [0, IGNORED]
    left_out = [known[name] for name in names]
    values = [value for value in known.values() if value not in left_out and value != IGNORED]
    if len(values) < 2:
        raise BenchError(f"{found.label}: the labels hold {few(list(known))}: fewer than two classes")
    if colours:
        also = [[*value, IGNORED] for value in sorted(colours) if value in left_out]
        return {"rule": "palette"} | ({"also": also} if also else {}), values
    if values == list(range(len(values))):
        return {"rule": "index"}, values
    if values == list(range(1, len(values) + 1)):
        return {"rule": "index", "reduce_zero": True}, values
    return {"rule": "index", "raw_ids": values}, values


def _text(name: str, folder: str, found: Findings, labels: Mapping[str, Any], classes: Sequence[Sequence[str]]) -> str:
    """Text of the card, with a comment where somebody has to decide."""
    words = [list(one) for one in classes] or [[f"class_{number}"] for number in range(len(found.classes))]
    key = "_".join(f"{{{one}}}" for one in fields_of(found.image))
    content: dict[str, Any] = {"name": name, "folders": [folder], "classes": [one[0] for one in words]}
    content |= {"palette": _palette(found), "vocabularies": {"cvpr2025": words}, "threshold": 0.0, "background": 0}
    content |= {"metric": "miou" if len(words) == 2 else None, "fields": _fields(found), "id": key}
    names = ["_".join(one) for one in found.pairs]
    content |= {"split": {"key": key, "names": names} if found.alone else None, "expected_count": len(names)}
    layout = {"image": found.image, "label": found.label, "labels": dict(labels)}
    channels = ({"bands": [1, 2, 3]} if found.bands else {}) | ({"stretch": [2, 98]} if found.stretch else {})
    content["layouts"] = {"original": layout | channels}
    notes = {
        "classes": f"names in tables, of the labels' values {', '.join(map(spelled, found.classes))}",
        "vocabularies": "words to prompt with, for each class",
        "threshold": "pixels less probable than this become the class `background`",
        "metric": "or foreground_iou, of the second class alone",
        "split": f"{found.alone:,} images have no label",
    }
    lines = ["# Written by `python -m bench datasets new`; docs/adding-a-dataset.md says what the keys mean.\n"]
    for part, value in content.items():
        if value in (None, [], {}):
            continue
        lines += [f"# {notes[part]}\n"] if part in notes else []
        lines.append(_yaml(part, value))
    return "".join(lines)


def _yaml(key: str, value: Any) -> str:
    """One key of a card: in one line, but for mappings of mappings and lists."""
    deep = isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values())
    flow: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 1 << 20}
    if deep:
        return str(yaml.safe_dump({key: value}, default_flow_style=None, **flow))
    text: str = yaml.safe_dump(value, default_flow_style=True, **flow)
    return f"{key}: {text.removesuffix(_END).strip()}\n"


def _below(folder: Path, data_root: Path) -> str:
    """Return the folder as a card names it: below the data root, else from the root of the disk."""
    whole, root = folder.expanduser().resolve(), data_root.resolve()
    return str(whole.relative_to(root) if root in whole.parents else whole)


def _palette(found: Findings) -> list[list[int]]:
    """Colours of the classes, where the labels have some."""
    if found.colours is None:
        return [list(value) for value in found.classes if isinstance(value, tuple)]
    colours = [found.colours[3 * value : 3 * value + 3] for value in found.classes if isinstance(value, int)]
    return colours if all(len(colour) == 3 for colour in colours) else []


def _fields(found: Findings) -> dict[str, str]:
    """Expression of the name that keeps labels out, where the pattern of the images would take them as well."""
    image, label = PurePosixPath(found.image), PurePosixPath(found.label)
    if (image.parent, image.suffix, image.stem) != (label.parent, label.suffix, "{n}"):
        return {}
    before, after = label.stem.split("{n}")
    return {"n": f"(?!{re.escape(before)})[^/]+" if before else f"[^/]+(?<!{re.escape(after)})"}
