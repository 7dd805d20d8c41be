"""``cell.json``: what is written beside the counts of one result. docs/results.md describes its keys."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from bench.errors import BenchError
from bench.runtime.atomic import write_atomic
from bench.runtime.provenance import provenance
from bench.settings import DatasetFacts, Settings

RECORD = "cell.json"
FORMAT: Final = 1
"""Version of the store. A reader refuses versions that are newer than itself."""
SCORING = ("threshold", "background")  # settings that are applied to stored counts
NAMING = ("row", "dataset")  # settings that say where a cell lies

Status: TypeAlias = Literal["ok", "incomplete", "partial", "failed", "no data"]
"""ok: all images are counted. incomplete: they are, but the dataset has fewer than its card expects."""
Numbers: TypeAlias = dict[str, float | str | list[float | None] | None]


class Part(BaseModel):
    """Of cell.json: keys of later versions are passed over."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


class ImageNumbers(Part):
    """total: of the dataset as it was found. expected: of its card, None where it does not say, for the demo and with a
    limit. planned: that fell to this process. counted, failed: of these.
    """

    total: int
    expected: int | None = None
    planned: int
    counted: int = 0
    failed: int = 0


class Cost(Part):
    """Of the last run that added images. seconds: of all of them. peak_memory_bytes: None where it is not known."""

    images: int
    seconds: float
    peak_memory_bytes: int | None = None


class Info(Part):
    """What tables print of a result, and what it was made on.

    caveat: why its numbers cannot be held against published ones. footnote: what else a reader must know.
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

    score: a fraction, None where it was undefined. written, until: when it was stored, and when it was replaced.
    changed: what made it so, in plain words. The rest is what it was made with.
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
    limit: int | None = None
    shard: str | None = None
    images: ImageNumbers
    metric: str
    metrics: Numbers = {}
    classes: list[str]
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

    def write(self, folder: Path) -> None:
        """Writes cell.json into the folder, with the time of writing. Raises OSError."""
        self.written = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        write_atomic(folder / RECORD, self.encoded())

    def encoded(self) -> bytes:
        """The bytes of cell.json."""
        text = json.dumps(json.loads(self.model_dump_json()), indent=2, ensure_ascii=False)  # nan has become null
        return f"{text}\n".encode()


@dataclass(frozen=True)
class ResultSpec:
    """What one result is of: settings, the hashes of its inputs, and its dataset.

    inputs: hashes by name of all that decides the counts besides the settings: weights, upsampler, card (without its
    threshold), plug-in, data list, vocabulary. images: (id, scene) of every image of the dataset in its fixed order.
    classes, metric: the card's. contents: for each image the checksum of its files, None where it is not known; images
    that were counted with another one are to be done again. expected: how many images the card says there are.
    card: what tables and verdicts need of the dataset's card.
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

    @property
    def fingerprint(self) -> str:
        """See `identity`."""
        return identity(self.settings, self.inputs)

    def record(self) -> Record:
        """A new record of this result, with nothing counted yet."""
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
            made_with=provenance(),
        )


def identity(settings: Settings, inputs: Mapping[str, str]) -> str:
    """sha256 over all that decides the counts."""
    deciding = settings.model_dump(mode="json", exclude={*SCORING, *NAMING})
    silent_values = {"refine": "none", "models": {}, "aggregate": "max", "tau": 4.0, "templates": "imagenet"}
    for key, silent in silent_values.items():  # results of before there were such keep their identity
        if deciding[key] == silent:
            del deciding[key]
    text = json.dumps([deciding, dict(inputs)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_record(file: Path) -> Record:
    """The record in a cell.json. BenchError where it is damaged or of a newer version."""
    try:
        return Record.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BenchError(f"{file}: no cell.json that can be read ({_reason(error)}); run the cell again") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first: Any = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return str(error).splitlines()[0]
