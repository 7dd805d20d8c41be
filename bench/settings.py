"""The settings of one result: everything that decides its numbers, and what may override what."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _hundredth(value: float) -> float:
    if round(value * 100, 6) % 1:
        raise ValueError("counts are kept in steps of 0.01; give one of 0, 0.01, … 0.99")
    return value


def _storable(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"'{name}': numbers, text and lists of these are stored, {value!r} is not") from None
    return options


Aggregate: TypeAlias = Literal["max", "sum", "logsumexp"]
Library: TypeAlias = Literal["open_clip", "sam3", "radio", "dinotxt"]
"""Kind of a backbone: what builds it, and what its methods are made for."""
Pixels = Annotated[int, Field(ge=16, le=32768)]
WHOLE: Final = 0
"""Of a window: as large as the image (`none`). Of the long side: the image's own (`resize: original`)."""
PROBABILITIES: Final = 0.0
"""The scale of scores that are probabilities, of which no softmax is taken: `scale: none`."""


def _or_none(silent: float) -> BeforeValidator:
    return BeforeValidator(lambda value: silent if value == "none" else value)


def _whole_or_pixels(value: int) -> int:
    if value != WHOLE and not 16 <= value <= 32768:
        raise ValueError("give `none`, for the whole image, or a number from 16 to 32768")
    return value


def _printable(word: str) -> str:
    if not word.isprintable():
        raise ValueError(f"{word!r} holds a line break or a control character; remove it")
    return word


Window = Annotated[int, _or_none(WHOLE), AfterValidator(_whole_or_pixels)]
Scale = Annotated[float, _or_none(PROBABILITIES), Field(ge=0)]
Stride = Annotated[int, Field(ge=1, le=32768)]
Probability = Annotated[float, Field(ge=0, lt=1), AfterValidator(_hundredth)]
"""A threshold: counts are kept by hundredths of the probability."""
Word = Annotated[str, Field(pattern=r"\S"), AfterValidator(_printable)]
Words = Annotated[tuple[Word, ...], Field(min_length=1)]
"""Prompt words of one class."""
CardWords = tuple[Word, ...]
"""Prompt words of one class of a card; none for a background that is counted but not prompted."""
EXTERNAL: Final = "external"
"""Method of label maps that another program made."""
IGNORED: Final = 255
"""No class: in a label a pixel that is not evaluated, in a prediction a pixel that is given none."""


class Join(NamedTuple):
    """How the scores of a class's words make the score of the class (`bench.inference.postprocess.classify`)."""

    aggregate: Aggregate = "max"
    tau: float = 4.0  # of logsumexp


BEST_WORD: Final = Join()


ClassNumber: TypeAlias = Annotated[int, _or_none(IGNORED), Field(ge=0, le=IGNORED)]


class Model(BaseModel):
    """Part of a configuration: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        defer_build=True,  # built on first use: --help is quick
    )


class ResizeRule(Model):
    """Size of the network's input: the long side, or the short side with a bound on the long one; pixels.

    `original`, a long side of 0, stands for the image's own size.
    """

    long_side: Window | None = None
    short_side: Pixels | None = None
    long_max: Pixels | None = None
    antialias: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"long_side": WHOLE} if value == "original" else value

    @model_validator(mode="after")
    def _one_of(self) -> ResizeRule:
        if (self.long_side is None) == (self.short_side is None):
            raise ValueError("give either long_side or short_side, or `original`")
        return self

    @property
    def original(self) -> bool:
        """True where images keep their own size."""
        return self.long_side == WHOLE

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) after the resize; up or down, halves rounded up."""
        if self.original:
            return height, width
        long, short = max(height, width), min(height, width)
        if self.short_side is None:
            scale = (self.long_side or 0) / long
        else:
            scale = min(self.short_side / short, (self.long_max or math.inf) / long)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def __str__(self) -> str:
        if self.original:
            return "the original size"
        return f"long side {self.long_side}" if self.long_side else f"short side {self.short_side}"


class AntialiasedResize(ResizeRule):
    """Resize by Pillow's bilinear filter, as SAM's own code does it, in place of OpenCV's.

    multiple: of which both sides are made multiples before, by OpenCV.
    """

    antialias: ClassVar[bool] = True
    multiple: int = 1

    def stretched(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) before Pillow's resize, rounded up."""
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple

    def size(self, height: int, width: int) -> tuple[int, int]:
        return super().size(*self.stretched(height, width))


class Overrides(Model):
    """What a row, a modifier or a card may change of the protocol. None means: not changed here."""

    backbone: str | None = None
    upsampler: str | None = None  # a name of `upsamplers:`, or "none"
    debias: float | None = Field(None, ge=0, le=1e6)  # λ of eq. 9; products stay finite in float32
    debias_on: Literal["scores", "features"] | None = None
    resize: ResizeRule | None = None
    window: Window | None = None  # or "none": the whole image
    stride: Stride | None = None
    scale: Scale | None = None  # of the scores before the softmax, or "none": they are probabilities
    vocabulary: str | None = None
    threshold: Probability | None = None
    background: ClassNumber | None = None  # class of the pixels below the threshold, or "none"
    refine: str | None = None  # a refinement of the stitched scores, or "none"
    aggregate: Aggregate | None = None  # how the words of a class make its score
    tau: float | None = Field(None, gt=0)  # of `aggregate: logsumexp`
    templates: str | None = None  # a name of `templates:`, the sentences that words are put into
    protocol: str | None = None  # a name of `protocols:`, whose settings give way to the row's
    options: Annotated[dict[str, Any], AfterValidator(_storable)] = {}  # parameters of the method itself
    models: dict[str, str] = {}  # role -> a name of `models:`, the second models that the method looks through


class Settings(Model):
    """Everything that decides the numbers of one cell, resolved; stored with the cell."""

    row: str
    dataset: str
    method: str
    options: dict[str, Any]
    backbone: str
    upsampler: str
    debias: float
    debias_on: Literal["scores", "features"]
    resize: ResizeRule
    window: int
    stride: int
    scale: float
    vocabulary: str
    threshold: Probability
    background: int
    refine: str = "none"
    models: dict[str, str] = {}
    aggregate: Aggregate = "max"
    tau: float = 4.0
    templates: str = "imagenet"

    @property
    def join(self) -> Join:
        """How the words of a class make its score."""
        return Join(self.aggregate, self.tau)

    @classmethod
    def neutral(cls, row: str, dataset: str, method: str, **changes: Any) -> Settings:
        """Return settings of what no configuration made: neutral values but for the changes."""
        neutral: dict[str, Any] = {"options": {}, "backbone": method, "upsampler": "none", "vocabulary": method}
        neutral |= {"debias": 0.0, "debias_on": "scores", "scale": 1.0, "threshold": 0.0, "background": 0}
        neutral |= {"resize": ResizeRule(long_side=16), "window": 16, "stride": 1}
        return cls(row=row, dataset=dataset, method=method, **{**neutral, **changes})


class DatasetFacts(Model):
    """What outputs and verdicts need of a dataset's card, kept with each result as it was when it was counted."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)  # keys of later versions are passed over

    name: str
    title: str
    short: str = ""  # name at the head of a column; empty: the title
    task: str
    palette: tuple[tuple[int, int, int], ...]  # display colour of each class
    expected_count: int | None = None  # images that the card says there are
    threshold: float
    background: int
    debias: float | None = None
    geometry: dict[str, Any] = {}  # resize, window and stride where they depart from the protocol
    words: tuple[tuple[str, ...], ...] = ()  # prompt words of each class, of the result's vocabulary
    known_vocabularies: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()  # statements that no source could confirm

    @property
    def vocabularies(self) -> Mapping[str, Sequence[Sequence[str]]]:
        """Names of the card's vocabularies, each with the words of the result's own."""
        return dict.fromkeys(self.known_vocabularies, self.words)

    def overrides(self) -> dict[str, Any]:
        """Return what the dataset changes of the protocol: resize, window and stride, or nothing."""
        return dict(self.geometry)


def miscount(images: int, expected: int | None) -> str | None:
    """Say how many images there are where the card expects fewer or more; None where they are as many, or no number.

    >>> miscount(4, 1669), miscount(46, 40)
    ('4 of 1,669 images', '46 images, 40 expected')
    """
    if expected is None or images == expected:
        return None
    return f"{images:,} of {expected:,} images" if images < expected else f"{images:,} images, {expected:,} expected"


class DatasetDefaults(typing.Protocol):
    """What settings take from a dataset's card."""

    @property
    def name(self) -> str: ...

    @property
    def background(self) -> int: ...

    @property
    def threshold(self) -> float: ...

    @property
    def debias(self) -> float | None: ...

    @property
    def vocabularies(self) -> Mapping[str, Sequence[Sequence[str]]]: ...

    def overrides(self) -> dict[str, Any]: ...
