"""The content of ``cell.json``, written beside the counts of one result. docs/results.md describes its keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from bench.errors import BenchError
from bench.metrics import METRICS
from bench.runtime.atomic import write_atomic
from bench.runtime.checksum import CHECKSUM, sealed, unsealed
from bench.runtime.provenance import provenance, utc_now
from bench.settings import IGNORED, DatasetFacts, Overrides, Settings

RECORD = "cell.json"
AGAIN = "run the cell again"
FORMAT: Final = 1
"""Version of the store. A reader refuses versions that are newer than itself."""
MOST_CLASSES: Final = 254  # label maps are bytes, and 255 is ignored
SCORING = ("threshold", "background")  # settings that are applied to stored counts
NAMING = ("row", "dataset")  # settings that say where a cell is stored

Status: TypeAlias = Literal["ok", "incomplete", "partial", "failed", "no data"]
"""ok: all images are counted. incomplete: they are, but the dataset has fewer or more than its card expects."""
Standing: TypeAlias = Status | Literal["damaged"]
"""damaged: its counts are not as they were written."""
DONE: Final = ("ok", "incomplete")  # every image is counted
Numbers: TypeAlias = dict[str, float | str | list[float | None] | None]


class Damaged(BenchError):
    """A stored cell that is not as it was written, not where it was written, or impossible. The text names the file."""


class Part(BaseModel):
    """A part of cell.json; keys of later versions are passed over."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


class ImageNumbers(Part):
    """Numbers of images of a cell.

    total: of the dataset as it was found.
    expected: of its card; None where it does not say, for the demo and with a limit.
    planned: how many of them this process had to do.
    counted, failed: of the planned ones.
    """

    total: int = Field(ge=0)
    expected: int | None = None
    planned: int = Field(ge=0)
    counted: int = Field(0, ge=0)
    failed: int = Field(0, ge=0)


class Cost(Part):
    """Cost of the last run that added images.

    seconds: of all of them.
    peak_memory_bytes: None where it is not known.
    """

    images: int = Field(gt=0, le=1 << 53)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    peak_memory_bytes: int | None = Field(None, ge=0, le=1 << 53)


class Info(Part):
    """Description of a result for tables, and of what it was made on.

    caveat: why its numbers cannot be held against published ones.
    footnote: what else a reader must know.
    method_defaults: what the plug-in overrides.
    """

    label: str | None = None
    venue: str = ""
    device: str | None = None
    dtype: str | None = None
    backbone: str | None = None
    layout: str | None = None
    caveat: str | None = None
    footnote: str | None = None
    method_defaults: dict[str, JsonValue] = {}


class Previous(Part):
    """A score that the cell had before it was counted or scored again.

    score: a fraction, None where it was undefined.
    written, until: when it was stored, and when it was replaced.
    changed: what made it so, in plain words.
    The rest is what it was made with.
    """

    score: float | None
    metric: str
    counted: int
    total: int
    written: str
    until: str = ""
    changed: list[str] = []
    settings: Settings
    inputs: dict[str, str] = {}
    commit: str = ""
    counts_sha256: str | None = None


class Record(Part):
    """The content of one cell.json."""

    format: int = Field(FORMAT, le=FORMAT)
    row: str
    dataset: str
    status: Status = "partial"
    reason: str | None = None
    demo: bool = False
    limit: int | None = Field(None, ge=1)
    shard: str | None = None
    images: ImageNumbers
    metric: str
    metrics: Numbers = {}
    classes: list[str] = Field(min_length=1, max_length=MOST_CLASSES)
    card: DatasetFacts | None = None  # None in results of versions that did not keep it
    settings: Settings
    inputs: dict[str, str] = {}
    fingerprint: str
    counts_sha256: str | None = None
    cost: Cost | None = None
    info: Info = Info()
    made_with: dict[str, JsonValue] = {}
    earlier: list[dict[str, JsonValue]] = []  # machines that counted some of the images before
    history: list[Previous] = []  # scores that this one took the place of, the oldest first
    written: str = ""
    checksum: str | None = Field(None, exclude=True)  # None in records of versions that wrote none

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        """Refuse what no run writes, so that nobody who reads a record has to expect it."""
        settings, classes = self.settings, len(self.classes)
        if (self.row, self.dataset) != (settings.row, settings.dataset):
            raise ValueError(
                f"holds {self.row} on {self.dataset}, with the settings of {settings.row} on {settings.dataset}"
            )
        if self.metric not in METRICS or (self.metric == "foreground_iou" and classes != 2):
            raise ValueError(f"metric '{self.metric}' does not exist for {classes} classes")
        if not (0 <= settings.background < classes or settings.background == IGNORED):
            raise ValueError(f"background {settings.background} is none of the {classes} classes")
        Overrides.model_validate(self.info.method_defaults)
        if self.fingerprint != identity(settings, self.inputs):
            raise ValueError("its fingerprint is not that of its settings and inputs")
        return self

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """Read and check the record in the bytes of a cell.json.

        Raises ValueError for one that is damaged.
        """
        unsealed(data, cls.model_fields)
        return cls.model_validate_json(data)

    def write(self, folder: Path, written: str | None = None) -> None:
        """Write cell.json into the folder.

        written: its time, now by default.
        Raises OSError.
        """
        self.written = written or utc_now()
        write_atomic(folder / RECORD, self.encoded())

    def encoded(self) -> bytes:
        """Return the bytes of cell.json, with their checksum."""
        content = sealed(json.loads(self.model_dump_json()))  # nan has become null
        self.checksum = content[CHECKSUM]
        return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class ResultSpec:
    """Identity of one result: settings, the hashes of its inputs, and its dataset.

    inputs: hashes by name of all that decides the counts besides the settings: weights, upsampler, card (without its
        threshold), plug-in, data list, vocabulary.
    images: (id, scene) of every image of the dataset in its fixed order.
    classes, metric: the card's.
    contents: for each image the checksum of its files, None where it is not known; images that were counted with
        another one are to be done again.
    expected: how many images the card says there are.
    card: what tables and verdicts need of the dataset's card.
    batch: windows at once, which the rounding depends on.
    """

    settings: Settings
    inputs: Mapping[str, str]
    images: Sequence[tuple[str, str | None]]
    classes: Sequence[str]
    metric: str
    info: Info = field(default_factory=Info)
    contents: Sequence[str | None] | None = None
    expected: int | None = None
    card: DatasetFacts | None = None
    batch: int | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the counts, see `identity`."""
        return identity(self.settings, self.inputs)

    def record(self) -> Record:
        """Return a new record of this result, with nothing counted yet."""
        total = len(self.images)
        return Record(
            row=self.settings.row,
            dataset=self.settings.dataset,
            images=ImageNumbers(total=total, planned=total, expected=self.expected),
            metric=self.metric,
            classes=list(self.classes),
            card=self.card,
            settings=self.settings,
            inputs=dict(sorted(self.inputs.items())),
            fingerprint=self.fingerprint,
            info=self.info,
            made_with=provenance() | ({} if self.batch is None else {"batch": str(self.batch)}),
        )


def identity(settings: Settings, inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 over all that decides the counts."""
    deciding = settings.model_dump(mode="json", exclude={*SCORING, *NAMING})
    silent_values = {"refine": "none", "models": {}, "aggregate": "max", "tau": 4.0, "templates": "imagenet"}
    for key, silent in silent_values.items():  # results of before there were such keep their identity
        if deciding[key] == silent:
            del deciding[key]
    text = json.dumps([deciding, dict(inputs)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_record(file: Path) -> Record:
    """Read the record in a cell.json.

    Raises Damaged where it is not whole, BenchError where it may not be read.
    """
    try:
        return Record.parse(file.read_bytes())
    except PermissionError as error:
        raise BenchError(f"{file}: cannot be read ({error.strerror}); correct its permissions") from None
    except (OSError, ValueError) as error:
        raise Damaged(f"{file}: no cell.json that can be read ({reason_of(error)}); {AGAIN}") from None


def reason_of(error: Exception) -> str:
    """Say why a record, or a manifest of an archive, could not be read, in one line."""
    if isinstance(error, ValidationError):
        first: Any = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return next(iter(str(error).splitlines()), "")
