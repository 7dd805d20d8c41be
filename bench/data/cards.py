"""Dataset cards: one YAML file says all there is to know of a dataset. See docs/adding-a-dataset.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from bench.data.patterns import COORDINATES, fields_of
from bench.data.schema import Colour, Download, Geometry, Layout, Split, Strict, Tiling
from bench.data.vocabularies import words_for
from bench.errors import BenchError, did_you_mean, reading, validation_message
from bench.paths import shipped
from bench.runtime.yaml_files import read_yaml
from bench.settings import CardWords, DatasetFacts, Probability, Word


class Card(Strict):
    """Everything known of one dataset. Immutable; `load_card` makes it from YAML.

    What a private dataset need not say has a default.
    """

    name: str = Field(pattern="^[a-z0-9_]+$", description="as the file is called, and on the command line")
    aliases: tuple[str, ...] = ()
    title: str = Field("", description="default: the name")
    short: str = Field("", description="name at the head of a column, default: the title")
    task: Literal["semantic", "building", "road", "water"] = "semantic"
    modality: str = "modality not stated"
    licence: str = "private"
    citation: str | None = Field(None, description="the paper to cite, as its authors or their pages state it")
    access: Literal["open", "gated", "registration", "request", "private"] = Field(
        "private", description="gated: terms are accepted on Hugging Face; registration: an account; request: a form"
    )
    obtain: str = Field(
        "The dataset is private: put its files there, or correct `folders` of the card.",
        description="how to get the files, in a sentence or two",
    )
    sources: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    folders: tuple[str, ...] = Field(
        (), description="below the data root, in any case, or from the root of the disk; default: the name"
    )

    classes: Annotated[tuple[Word, ...], Field(min_length=2)]
    palette: tuple[Colour, ...] = Field((), description="display colours; default: PASCAL VOC's map")
    vocabularies: dict[str, tuple[CardWords, ...]] = Field(
        description="prompt words, by vocabulary and class; none for a background that is counted but not prompted"
    )
    threshold: Probability = Field(0.0, description="pixels below this probability become background")
    background: int = Field(0, ge=0)
    uncounted: tuple[str, ...] = Field(
        (), description="classes that are prompted but not counted: their labels are ignored"
    )
    metric: Literal["miou", "miou_labelled", "foreground_iou"] = "miou"
    debias: float | None = Field(None, ge=0, description="replaces the λ of rows that have one")
    geometry: Geometry | None = None

    fields: dict[str, str] = Field({}, description="regular expression of each field of the patterns")
    id: str = Field("{n}", description="pattern of the sample id; the same in every layout")
    example: dict[str, str] = Field({}, description="fields of one sample, as the dataset names it")
    scene: str | None = Field(None, description="regular expression: the part of an id that names its scene")
    split: Split | None = None
    split_note: str = "all images"
    tiling: Tiling | None = None
    numbers: dict[str, tuple[int, int]] = Field(
        {}, description="first and last number of a field; others are of another split"
    )
    shares: tuple[float, ...] = Field((), description="of the pixels of each class of the real set, per cent")
    expected_count: int | None = Field(None, ge=1)
    layouts: Annotated[dict[str, Layout], Field(min_length=1, description="the first that is found is used")]

    notes: tuple[str, ...] = ()
    leaks: tuple[str, ...] = Field((), description="training sets of other models that hold its images or labels")
    unverified: tuple[str, ...] = Field((), description="statements of this card that no source could confirm")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """Fill in what the name says, where the card does not."""
        if not isinstance(data, dict) or "name" not in data:
            return data
        return {"title": data["name"], **data, "folders": data.get("folders") or [data["name"]]}

    @model_validator(mode="after")
    def _classes_agree(self) -> Card:
        classes = len(self.classes)
        if classes > 255:
            raise ValueError(f"{classes} classes; labels are 8-bit and 255 means ignored")
        if twice := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise ValueError(f"two classes are called '{twice[0]}'")
        if "cvpr2025" not in self.vocabularies:
            raise ValueError("vocabularies lacks 'cvpr2025', the default")
        for key, rows in {"palette": self.palette, "shares": self.shares, **self.vocabularies}.items():
            if rows and len(rows) != classes:
                raise ValueError(f"{key} has {len(rows)} entries for {classes} classes")
        if self.background >= classes:
            raise ValueError(f"background {self.background} is no class number (0 to {classes - 1})")
        if self.metric == "foreground_iou" and classes != 2:
            raise ValueError("metric foreground_iou needs two classes, background and foreground")
        for key, rows in self.vocabularies.items():
            for number, words in enumerate(rows):
                if not words and number != self.background:
                    raise ValueError(
                        f"{key} has no words for {self.classes[number]}; only the background may have none"
                    )
        for name in self.uncounted:
            if name not in self.classes:
                raise ValueError(f"uncounted: no class '{name}'; {did_you_mean(name, self.classes)}")
        if self.uncounted and self.metric != "miou_labelled":
            raise ValueError("uncounted needs metric miou_labelled, the mean over the classes that are in the labels")
        return self

    @model_validator(mode="after")
    def _patterns_agree(self) -> Card:
        for name, expression in {**self.fields, "scene": self.scene or ""}.items():
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{name}: not a regular expression ({error})") from None
        for name, layout in self.layouts.items():
            known = {*fields_of(layout.image), *(COORDINATES if layout.cut else ())}
            split = layout.split or self.split
            for key in (layout.id or self.id, split.key if split else ""):
                for field in fields_of(key):
                    if field not in known:
                        raise ValueError(f"layouts.{name}.image lacks {{{field}}}, which '{key}' needs")
            if layout.cut and self.tiling is None:
                raise ValueError(f"layouts.{name} says cut, but the card has no tiling")
            raw_ids = getattr(layout.labels, "raw_ids", ())
            if raw_ids and len(raw_ids) != len(self.classes):
                raise ValueError(f"layouts.{name}.labels.raw_ids: {len(raw_ids)} values, {len(self.classes)} classes")
        return self

    @property
    def colours(self) -> tuple[Colour, ...]:
        """Display colour of each class."""
        return self.palette or tuple(_voc_colour(number) for number in range(len(self.classes)))

    def overrides(self) -> dict[str, Any]:
        """Return the settings that the dataset changes in the protocol: resize, window and stride, or nothing."""
        return self.geometry.model_dump() if self.geometry else {}

    def facts(self, words: Sequence[Sequence[str]] = ()) -> DatasetFacts:
        """Return the facts that results keep of the card.

        words: of each class, those that the result was counted with
        """
        kept = self.model_dump(include=set(DatasetFacts.model_fields) - {"geometry", "palette"})
        own = {"palette": self.colours, "geometry": self.overrides(), "words": words}
        return DatasetFacts(**kept, **own, known_vocabularies=tuple(self.vocabularies))

    def scene_of(self, sample_id: str) -> str | None:
        """Return the scene of a sample: the first group (or all) of what `scene` finds in its id."""
        found = re.search(self.scene, sample_id) if self.scene else None
        return found.group(found.lastindex or 0) if found else None

    def caveat(self, layout: str | None) -> str | None:
        """Say why numbers of a layout cannot match published ones; None where they can, and for an unknown layout."""
        found = self.layouts.get(layout or "")
        about = found and not found.comparable and found.about
        return f"layout '{layout}' is not the published preparation ({about})" if about else None


def card_names(folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """Names of all cards: the shipped ones and those in the user's folders."""
    return tuple(sorted(_files(folders)))


def load_card(name: str, folders: Sequence[Path] = ()) -> Card:
    """Return the card of that name or alias; `folders` may hold further cards.

    Raises BenchError for an unknown name, two cards of one name, and whatever is wrong in the file.
    """
    files = _files(folders)
    wanted = name.lower().replace("-", "_")
    if wanted in files:
        return _read(files[wanted])
    for file in files.values():
        card = _read(file)
        if wanted in (alias.lower().replace("-", "_") for alias in card.aliases):
            return card
    raise BenchError(f"unknown dataset '{name}'; {did_you_mean(wanted, files)}")


def is_shipped(name: str) -> bool:
    """Return whether the card of that name is one of the shipped ones, whose keys are known to be right."""
    return name in _files(())


def card_schema() -> dict[str, Any]:
    """JSON schema of a card file, for editors."""
    return Card.model_json_schema()


def _files(folders: Sequence[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for folder in (shipped("datasets"), *map(Path, folders)):
        if not folder.is_dir():
            raise BenchError(f"{folder}: no such folder of dataset cards")
        for file in sorted(folder.glob("*.yaml")):
            if file.stem in files:
                raise BenchError(f"two cards are called '{file.stem}': {files[file.stem]} and {file}; rename one")
            files[file.stem] = file
    return files


def _read(file: Path) -> Card:
    content = read_yaml(file, "a dataset card")
    if not isinstance(content, dict):
        raise BenchError(f"{file}: a card is a mapping of keys to values")
    layouts = content.get("layouts")
    for part in (content, *(layouts.values() if isinstance(layouts, dict) else ())):
        if isinstance(part, dict):
            _fill_split(part.get("split"), file)
    if isinstance(content.get("vocabularies"), dict):
        for name, words in words_for(file.stem):
            content["vocabularies"].setdefault(name, words)
    try:
        card = Card.model_validate(content)
    except ValidationError as error:
        missing = any(one["type"] == "missing" for one in error.errors())
        hint = "; `bench datasets new` writes a whole card from a folder" if missing else ""
        raise BenchError(validation_message(file, error) + hint) from None
    if card.name != file.stem:
        raise BenchError(f"{file}: name is '{card.name}'; it must be the file's, '{file.stem}'")
    return card


def _fill_split(split: Any, card: Path) -> None:
    """Fill in the names of a split that points to a file."""
    if not isinstance(split, dict) or not isinstance(split.get("file"), str):
        return
    path = card.parent / split["file"]
    with reading(f"{card}: split.file: {path}", "give a text file in UTF-8"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        split["names"] = [line for line in lines if line and not line.startswith("#")]


def _voc_colour(number: int) -> Colour:
    """Colour of a class in PASCAL VOC's map: the bits of its number, dealt to the channels from the top."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]
