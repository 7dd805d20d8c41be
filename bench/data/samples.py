"""The samples of a dataset: images with their labels, in an order that does not depend on the layout."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.archives import File
from bench.data.cards import Card
from bench.data.images import Depth, pillow_errors, read_bands
from bench.data.labels import read_label
from bench.data.layouts import DatasetMissing, Found, SourcePair, dataset_folders, locate
from bench.data.patterns import fill
from bench.data.tiling import TileBox, boxes, crop, pad
from bench.errors import BenchError
from bench.paths import cache_dir
from bench.runtime.remembered import Remembered


@dataclass(frozen=True, eq=False)
class Sample:
    """image: RGB uint8 (H, W, 3); label: uint8 (H, W), class index, 255 ignored."""

    index: int
    id: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]


class SampleSet(ABC):
    """The samples of one dataset. Nothing is decoded until it is read; picklable, for workers.

    layout: name of the layout, root: where it was found. ids: names in fixed order, the same for every
    layout. sources: for each pair of files, the consecutive indices of the samples that are cut from it.
    absent: names of the split without a file. warnings: what is odd, but no error.
    """

    def __init__(self, card: Card, layout: str, root: Path, ids_by_source: list[tuple[str, ...]]) -> None:
        self.card = card
        self.layout = layout
        self.root = root
        self.ids = tuple(name for names in ids_by_source for name in names)
        ends = np.cumsum([len(names) for names in ids_by_source]).tolist()
        self.sources = tuple(range(end - len(names), end) for end, names in zip(ends, ids_by_source, strict=True))
        self.absent: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def read_source(self, source: int) -> Iterator[Sample]:
        """Yield the samples of one source, which is decoded once. Raises BenchError for what cannot be read."""

    @abstractmethod
    def read_label(self, source: int) -> NDArray[np.uint8]:
        """Return the label of one whole source, before it is cut; cheaper than reading the samples."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that changes when a file is added, removed, renamed or of another size. Reads no file."""

    @abstractmethod
    def content(self, source: int) -> str:
        """Checksum of what the files of a source hold. Raises BenchError where they cannot be read."""

    @abstractmethod
    def stamp(self, source: int) -> str:
        """Size and time of change of the files of a source. Reads no file."""

    def pair(self, source: int) -> SourcePair | None:
        """Return the files of a source; None for samples in shards."""
        return None

    def make_ready(self) -> None:
        """Do once what each worker would do for itself. Raises BenchError where that cannot be done."""
        return

    def names_fingerprint(self) -> str:
        """Return a hash that changes when a sample is added, removed or renamed."""
        text = "\n".join((f"{self.card.name} {self.layout}", *self.ids))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def read(self, index: int) -> Sample:
        """One sample. Reading a source is the way to get all that are cut from it."""
        source = bisect_right(self.sources, index, key=lambda indices: indices.start) - 1
        return next(sample for sample in self.read_source(source) if sample.index == index)

    def scene(self, index: int) -> str | None:
        """Return the scene of a sample (the unit of resampling), or None where the card knows none."""
        return self.card.scene_of(self.ids[index])


class FileSamples(SampleSet):
    """Samples in the files of one of the card's layouts, in folders or archives."""

    def __init__(self, card: Card, found: Found) -> None:
        self._layout = card.layouts[found.layout]
        self._depth = Depth(self._layout.stretch, self._layout.bits)
        self._pairs = found.pairs
        sizes = Remembered(cache_dir() / "sizes" / f"{card.name}.json")
        self._boxes = tuple(self._cut(card, pair, sizes) for pair in found.pairs)
        sizes.save()
        pattern = self._layout.id or card.id
        ids = [_ids(pattern, pair, cut) for pair, cut in zip(found.pairs, self._boxes, strict=True)]
        super().__init__(card, found.layout, found.root, ids)
        self._refuse_odd_names()
        self._refuse_duplicates()
        self.absent = found.absent
        self.warnings = _warnings(card, found)

    def read_source(self, source: int) -> Iterator[Sample]:
        pair, cut, indices = self._pairs[source], self._boxes[source], self.sources[source]
        label = self.read_label(source)
        image = read_bands(pair.image.read(), str(pair.image), self._layout.bands, self._depth)
        if image.shape[:2] != label.shape:
            turned = image.shape[1::-1] == label.shape
            advice = "one of them was turned, turn it back" if turned else "they are no pair, get both again"
            raise BenchError(f"{pair.image} has {_by(image)} pixels, its label {pair.label} has {_by(label)}; {advice}")
        if not cut:
            yield Sample(indices[0], self.ids[indices[0]], image, label)
            return
        assert self.card.tiling is not None
        try:
            right = boxes(self.card.tiling, *label.shape) == cut
        except BenchError as error:
            raise BenchError(f"{pair.image}: {error}") from None
        if not right:
            raise BenchError(f"{pair.image}: another size than at first; run the same command again")
        image, label = pad(image, label, self.card.tiling)
        for index, box in zip(indices, cut, strict=True):
            yield Sample(index, self.ids[index], crop(image, box), crop(label, box))

    def read_label(self, source: int) -> NDArray[np.uint8]:
        pair = self._pairs[source]
        rule = self._layout.labels
        scene = pair.image.read() if rule.rule == "lines" else b""
        return read_label(pair.label.read(), rule, self.card, str(pair.label), scene)

    def pair(self, source: int) -> SourcePair:
        return self._pairs[source]

    def content(self, source: int) -> str:
        pair = self._pairs[source]
        return f"{pair.image.checksum()} {pair.label.checksum()}"

    def stamp(self, source: int) -> str:
        pair = self._pairs[source]
        return f"{pair.image.stamp()} {pair.label.stamp()}"

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.card.name} {self.layout} {len(self)}\n".encode())
        for pair, indices in zip(self._pairs, self.sources, strict=True):
            names = " ".join(self.ids[indices.start : indices.stop])
            digest.update(f"{names} {pair.image.size()} {pair.label.size()}\n".encode())
        return digest.hexdigest()[:16]

    def make_ready(self) -> None:
        for file in {file.on_disk: file for pair in self._pairs for file in (pair.image, pair.label)}.values():
            file.make_ready()

    def _cut(self, card: Card, pair: SourcePair, sizes: Remembered) -> tuple[TileBox, ...]:
        """Return the tiles of a scene; none if it is taken whole.

        Where the image cannot be measured the label is; where neither has a tile's size there is one tile, which
        `read_source` refuses.
        """
        if not self._layout.cut:
            return ()
        assert card.tiling is not None
        for file in (pair.image, pair.label):
            with contextlib.suppress(BenchError):
                width, height = _image_size(file, sizes)
                return boxes(card.tiling, height, width)
        return (TileBox(0, 0, card.tiling.width, card.tiling.height),)

    def _refuse_odd_names(self) -> None:
        for name in self.ids:
            try:
                name.encode()
            except UnicodeEncodeError:
                shown = name.encode(errors="backslashreplace").decode()
                raise BenchError(f"{self.root}: the name of sample '{shown}' is not UTF-8; rename the file") from None

    def _refuse_duplicates(self) -> None:
        seen: dict[str, File] = {}
        for pair, indices in zip(self._pairs, self.sources, strict=True):
            for name in self.ids[indices.start : indices.stop]:
                if name in seen:
                    raise BenchError(f"{seen[name]} and {pair.image} are both sample '{name}'; remove one of them")
                seen[name] = pair.image


def open_samples(card: Card, root: Path, layout: str | None = None) -> SampleSet:
    """Open the samples of a dataset below the data root, in the first layout that matches or the one named.

    Raises DatasetMissing where there is nothing; BenchError for an image without a label, two samples of one
    name.
    """
    folders = dataset_folders(card, root)
    if not folders:
        raise DatasetMissing(f"{card.name}: no folder {' or '.join(card.folders)} in {root}. {card.obtain}")
    return FileSamples(card, locate(card, folders, layout))


def open_folder(card: Card, folder: Path, layout: str | None = None) -> SampleSet:
    """As `open_samples`, from the dataset's own folder, or an archive in its place."""
    if not folder.exists():
        raise DatasetMissing(f"{card.name}: {folder} does not exist; give the folder or archive of the download")
    return FileSamples(card, locate(card, [folder], layout))


def _ids(pattern: str, pair: SourcePair, cut: tuple[TileBox, ...]) -> tuple[str, ...]:
    if not cut:
        return (fill(pattern, pair.fields),)
    tiles = ({axis: str(value) for axis, value in box._asdict().items()} for box in cut)
    return tuple(fill(pattern, {**pair.fields, **tile}) for tile in tiles)


def _warnings(card: Card, found: Found) -> tuple[str, ...]:
    layout = card.layouts[found.layout]
    warnings = []
    if not layout.comparable:
        warnings.append(f"layout {found.layout} is not comparable with published numbers: {layout.about}")
    if found.absent:
        warnings.append(f"{len(found.absent)} names of the split have no file, e.g. {found.absent[0]}")
    warnings += found.odd
    if found.extra_labels:
        warnings.append(f"{len(found.extra_labels)} labels have no image, e.g. {found.extra_labels[0]}")
    if found.outside:
        warnings.append(f"{found.outside} images are not in the split and are left out")
    return tuple(warnings)


def _image_size(file: File, sizes: Remembered) -> tuple[int, int]:
    """(width, height), from the header; of a packed file remembered, since a TIFF may have it at the end."""
    known = sizes.get(str(file), file.stamp()) if file.member is not None else None
    if known:
        width, height = map(int, known.split("x"))
        return width, height
    with file.open() as stream, pillow_errors(str(file)), Image.open(stream) as image:
        width, height = image.size
    if file.member is not None:
        sizes.set(str(file), file.stamp(), f"{width}x{height}")
    return width, height


def _by(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
