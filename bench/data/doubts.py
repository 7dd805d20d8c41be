"""Labels and images that can be read but do not look right: what `datasets check` warns of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.cards import Card
from bench.data.images import pillow_errors
from bench.data.labels import from_colours, open_label
from bench.data.layouts import SourcePair
from bench.data.patterns import parse
from bench.data.samples import SampleSet
from bench.data.schema import IndexRule, PaletteRule
from bench.errors import BenchError
from bench.paths import cache_dir
from bench.runtime.atomic import write_atomic
from bench.settings import IGNORED

T = TypeVar("T")
_ENOUGH = 8  # labels whose shares of classes say something of the set
_FAR = 0.35  # of the pixels would have to change their class for the shares to be those of the real set
_FEW, _MOST = 0.15, 0.6  # shares that small things, and the foreground of roads and buildings, stay below
_OFF = 0.001  # share of pixels in unknown colours that is said
_LOOKED_AT = 8  # files of which headers, palettes and colours are read
_PIXELS = 2000  # of a kind of surface, whose colour is asked for
_ORIENTATION = 274  # EXIF
_SMALL = ("car", "cars", "vehicle", "human", "person", "helicopter")
_PLANTS = ("tree", "forest", "vegetation", "grass", "meadow", "crop", "agricult", "rangeland", "deciduous", "conifer")
_SOIL = ("bare", "barren", "soil", "sand", "plowed")


def doubts(samples: SampleSet, pixels: Sequence[int], labels: int) -> Iterator[str]:
    """Say what does not look right, each with its likely cause.

    pixels: of each class, in the labels looked at; labels: how many these are.
    """
    yield from _numbers(samples)
    if labels >= _ENOUGH and any(pixels):
        shares = np.array(pixels) / sum(pixels)
        yield from _unlike_the_real_set(samples.card, shares)
        yield from _too_much(samples, shares)
    rule = samples.card.layouts[samples.layout].labels
    yield from islice(_turned(samples), 1)
    if isinstance(rule, PaletteRule):
        yield from _off_colours(samples, rule)
    if isinstance(rule, IndexRule) and samples.card.palette:
        yield from islice(_permuted(samples, rule), 1)
    yield from _odd_colours(samples)


def keep_shares(card: Card, pixels: Sequence[int]) -> Path | None:
    """Keep the shares of classes of a whole set, unless some are known; gives the file, which may be shared."""
    file = _kept(card)
    total = sum(pixels)
    if card.shares or file.exists() or not total:
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    shares = [round(100 * count / total, 2) for count in pixels]
    write_atomic(file, f"shares: {json.dumps(shares)}\n".encode())
    return file


def known_shares(card: Card) -> NDArray[np.float64] | None:
    """Shares of classes of the real set, 0..1, from the card or of a whole copy that was checked earlier."""
    known: Sequence[float] = card.shares
    if not known:
        try:
            known = json.loads(_kept(card).read_text(encoding="utf-8").partition(":")[2])
        except (OSError, ValueError):
            return None
    return np.array(known) / sum(known) if len(known) == len(card.classes) else None


def _kept(card: Card) -> Path:
    return cache_dir() / "shares" / f"{card.name}.yaml"


def _numbers(samples: SampleSet) -> Iterator[str]:
    card, pattern = samples.card, samples.card.layouts[samples.layout].id or samples.card.id
    for field, (first, last) in card.numbers.items():
        numbers = ((name, (parse(pattern, name, card.fields) or {}).get(field, "")) for name in samples.ids)
        out = [name for name, number in numbers if number.isdecimal() and not first <= int(number) <= last]
        if out:
            yield (
                f"{len(out):,} of {len(samples):,} samples, such as {out[0]}, are not numbered {first} to {last}: "
                "files of another split"
            )


def _unlike_the_real_set(card: Card, found: NDArray[np.float64]) -> Iterator[str]:
    known = known_shares(card)
    if known is None or (away := _away(found, known)) <= _FAR:
        return
    swaps = [(_away(_exchanged(found, a, b), known), a, b) for a in range(len(known)) for b in range(a)]
    least, a, b = min(swaps)
    worst = int(np.argmax(np.abs(found - known)))
    shown = f"{card.classes[worst]} covers {found[worst]:.0%} of the pixels, in the real set {known[worst]:.0%}"
    if least > away / 2:
        yield f"{shown}: labels of another set, split or numbering"
    elif len(known) == 2:
        yield f"{shown}: the mask seems to be inverted"
    else:
        yield f"{shown}: {card.classes[b]} and {card.classes[a]} seem to be exchanged"


def _away(found: NDArray[np.float64], known: NDArray[np.float64]) -> float:
    """Share of pixels that would have to change their class."""
    return float(np.abs(found - known).sum() / 2)


def _exchanged(shares: NDArray[np.float64], a: int, b: int) -> NDArray[np.float64]:
    order = np.arange(len(shares))
    order[[a, b]] = b, a
    return np.asarray(shares[order])


def _too_much(samples: SampleSet, shares: NDArray[np.float64]) -> Iterator[str]:
    """Things that are small everywhere, and masks of roads and buildings that are mostly foreground."""
    card, rule = samples.card, samples.card.layouts[samples.layout].labels
    if card.task in ("road", "building") and len(shares) == 2 and shares[1] > _MOST:
        yield f"{card.classes[1]} covers {shares[1]:.0%} of the pixels: the mask seems to be inverted"
    for name, share, colour in zip(card.classes, shares, card.colours, strict=True):
        if len(shares) > 2 and share > _FEW and name.lower() in _SMALL:
            turned = isinstance(rule, PaletteRule) and colour[::-1] != colour and colour[::-1] in card.colours
            why = "red and blue of the labels are exchanged" if turned else "classes are numbered otherwise"
            yield f"{name} covers {share:.0%} of the pixels: it seems that {why}"


def _some(samples: SampleSet) -> list[int]:
    found: list[int] = np.random.default_rng(0).permutation(len(samples.sources))[:_LOOKED_AT].tolist()
    return found


def _read(samples: SampleSet, read: Callable[[SourcePair], T]) -> Iterator[tuple[SourcePair, T]]:
    """Read something of some pairs of files, but for those that cannot be read: that is said elsewhere."""
    for pair in filter(None, map(samples.pair, _some(samples))):
        with suppress(BenchError):
            yield pair, read(pair)


def _turned(samples: SampleSet) -> Iterator[str]:
    for pair, tag in _read(samples, _orientation):
        if tag in range(2, 9):
            yield f"{pair.image}: is turned when it is read (EXIF orientation {tag}), and its label is not"


def _orientation(pair: SourcePair) -> object:
    with pair.image.open() as stream, pillow_errors(str(pair.image)), Image.open(stream) as image:
        return image.getexif().get(_ORIENTATION)


def _opened(pair: SourcePair) -> Image.Image:
    return open_label(pair.label.read(), str(pair.label))


def _off_colours(samples: SampleSet, rule: PaletteRule) -> Iterator[str]:
    card = samples.card
    found = _read(samples, lambda pair: from_colours(_opened(pair), rule, card, str(pair.label))[1])
    shares = [share for _, share in found]
    if shares and (share := float(np.mean(shares))) > _OFF:
        what = "ignored" if rule.unmatched == IGNORED else card.classes[rule.unmatched]
        yield f"{share:.1%} of the pixels of {len(shares)} labels have colours that stand for no class, and are {what}"


def _permuted(samples: SampleSet, rule: IndexRule) -> Iterator[str]:
    """Index labels whose own palette shows classes in each other's colours."""
    card = samples.card
    stored = rule.raw_ids or range(rule.reduce_zero, len(card.classes) + rule.reduce_zero)
    for pair, label in _read(samples, _opened):
        colours = np.array(label.getpalette() if label.mode == "P" else (), np.int64).reshape(-1, 3)
        here = set(np.unique(np.asarray(label)).tolist())
        shown = {k: tuple(colours[v].tolist()) for k, v in enumerate(stored) if v in here and v < len(colours)}
        wrong = {k: card.palette.index(colour) for k, colour in shown.items() if colour in card.palette}
        wrong = {k: other for k, other in wrong.items() if other != k}
        if len(wrong) > 1 and len(wrong) == len(shown):
            k, other = next(iter(wrong.items()))
            yield (
                f"{pair.label}: its palette shows {card.classes[k]} in the colour of {card.classes[other]}: a program "
                "seems to have numbered the colours otherwise"
            )


def _odd_colours(samples: SampleSet) -> Iterator[str]:
    """Plants that are red or blue, and soil that is blue: bands in another order than the card says."""
    if "infrared" in samples.card.modality:
        return
    sums = {kind: np.zeros(4) for kind in ("plants", "soil")}  # red, green, blue, pixels
    members = {
        kind: [k for k, name in enumerate(samples.card.classes) if any(word in name.lower() for word in words)]
        for kind, words in (("plants", _PLANTS), ("soil", _SOIL))
    }
    for source in _some(samples) if any(members.values()) else ():
        with suppress(BenchError):
            sample = next(samples.read_source(source))
            for kind, classes in members.items():
                chosen = sample.image[np.isin(sample.label, classes)]
                sums[kind] += [*chosen.sum(axis=0, dtype=np.float64), len(chosen)]
    for kind, (red, green, blue, count) in sums.items():
        red, green, blue = np.array([red, green, blue]) / max(1, count)
        if count < _PIXELS:
            continue
        if kind == "plants" and red > max(green, blue) + 25:
            yield "vegetation is red: near infrared seems to be shown as red; see `bands` of the card"
        elif kind == "plants" and blue > green + 10 and blue > red + 25:
            yield "vegetation is blue: near infrared seems to be shown as blue; see `bands` of the card"
        elif kind == "soil" and blue > red + 15:
            yield "bare soil is blue: red and blue of the images seem to be exchanged"
