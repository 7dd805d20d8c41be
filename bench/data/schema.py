"""The parts of a dataset card: label storage, file layouts, tiling, split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from bench.data.patterns import fields_of
from bench.errors import did_you_mean
from bench.settings import IGNORED, ResizeRule

Channel = Annotated[int, Field(ge=0, le=255)]
Band = Annotated[int, Field(ge=1)]
Colour = tuple[Channel, Channel, Channel]  # red, green, blue


class Strict(BaseModel):
    """A part of a card: immutable; an unknown key is an error that names the likely one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True
    )  # keeps the command line quick

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                hint = did_you_mean(str(key), cls.model_fields)
                raise PydanticCustomError("unknown_key", "unknown key '{key}'; {hint}", {"key": key, "hint": hint})
        return data


class _Rule(Strict):
    """Rule by which label files are read.

    stray: values beyond the classes that these labels are known to hold; they stay, as in the reference
    (what is predicted there counts in the union). foreign: values which tell that the labels are others,
    and which.
    """

    stray: tuple[Channel, ...] = ()
    foreign: dict[Channel, str] = {}


class IndexRule(_Rule):
    """Pixels hold class numbers.

    reduce_zero: 0 is "no data" and becomes 255, every other value is one too high. raw_ids: the stored value
    of each class in class order; all other values become 255.
    """

    rule: Literal["index"] = "index"
    reduce_zero: bool = False
    raw_ids: tuple[Channel, ...] = ()


class PaletteRule(_Rule):
    """Pixels hold the colours of the card's palette, in class order.

    also: further colours as [red, green, blue, label value], e.g. merged classes
    unmatched: label value of any other colour; more than a few per cent of them mean that the file is no label map
    binarise: channels are thresholded at 128 first, for label files with compression noise
    """

    rule: Literal["palette"]
    also: tuple[tuple[Channel, Channel, Channel, Channel], ...] = ()
    unmatched: Channel = IGNORED
    binarise: bool = False


class ThresholdRule(_Rule):
    """Grey value >= `at` is class 1, the rest class 0.

    stored: how official files hold the mask. jpeg_quality: the 0/1 mask takes a round trip through a grey
    JPEG of that quality, as the released preparation of WBS-SI did; it returns with wrong pixels and a third
    value.
    """

    rule: Literal["threshold"]
    at: int = Field(128, ge=1, le=255)
    stored: Literal["grey", "rgb", "bilevel"] = "grey"
    jpeg_quality: int | None = Field(None, ge=1, le=100)


class LinesRule(_Rule):
    """Class 1 is drawn from the lines of a GeoJSON file (WGS 84), `width_m` metres wide."""

    rule: Literal["lines"]
    width_m: float = Field(gt=0)


LabelRule = Annotated[IndexRule | PaletteRule | ThresholdRule | LinesRule, Field(discriminator="rule")]


class Split(Strict):
    """The sources that are evaluated: those whose `key` (a pattern of fields) is among the names."""

    key: str
    names: tuple[str, ...] = ()
    file: str | None = Field(None, description="text file beside the card, one name a line; fills `names`")

    @model_validator(mode="after")
    def _has_names(self) -> Split:
        if not self.names:
            raise ValueError("the split names no sample; give `names` or `file`")
        if len(set(self.names)) < len(self.names):
            raise ValueError("the split names a sample twice")
        return self


class Tiling(Strict):
    """Tiles of `width` x `height` pixels; neighbours share `overlap` pixels, the last one ends at the border.

    pad: smaller images are filled up at the bottom and on the right (image 0, label 255).
    fill: so is the last tile, in place of ending at the border.
    """

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    overlap: int = Field(0, ge=0)
    pad: bool = False
    fill: bool = False

    @model_validator(mode="after")
    def _moves_on(self) -> Tiling:
        if self.overlap >= min(self.width, self.height):
            raise ValueError("overlap must be smaller than the tile")
        return self


class Layout(Strict):
    """One way in which the files of a dataset are arranged on disk.

    image, label: path patterns below the dataset's folder (see bench.data.patterns)
    archives: globs of archives that are read as if they had been unpacked in place
    cut: files are whole scenes, to be cut by the card's tiling
    on_request: only used when asked for by name
    bands: numbers of the red, green and blue band of a TIFF, from 1; without them more than three are refused
    bits: of the values of 16-bit images, whose largest becomes 255; or
    stretch: percentiles of each channel that become 0 and 255 where an image has 16 bits
    id, split, example: instead of the card's
    """

    about: str = "as it is"
    image: str
    label: str
    labels: LabelRule = IndexRule()
    archives: tuple[str, ...] = ("*.zip", "*.tar")
    cut: bool = False
    on_request: bool = False
    footnote: str | None = Field(None, description="what tables say of numbers that were computed in this layout")
    comparable: bool = Field(True, description="false: results cannot match published ones")
    bands: tuple[Band, Band, Band] | None = None
    bits: int | None = Field(None, ge=9, le=16)
    stretch: tuple[float, float] | None = None
    id: str | None = None
    split: Split | None = None
    example: dict[str, str] | None = None

    @model_validator(mode="after")
    def _label_follows_image(self) -> Layout:
        if self.bits and self.stretch:
            raise ValueError("give bits or stretch, not both")
        for field in fields_of(self.label):
            if field not in fields_of(self.image):
                raise ValueError(f"label has {{{field}}}, which the pattern of the image lacks")
        return self


class Download(Strict):
    """An archive of the official release. file: where it belongs below the dataset's folder."""

    file: str
    url: str | None = Field(None, description="public direct address; none: to be got by hand")
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    bytes: int | None = Field(None, ge=1, description="size, as its source states it")
    index: bool = Field(False, description="url is a page; the images it links to belong into `file`")
    needed: bool = Field(True, description="false: known, but not read by any layout")


class Geometry(Strict):
    """Input size and windows where a dataset departs from the protocol."""

    resize: ResizeRule
    window: int = Field(ge=16)
    stride: int = Field(ge=1)
