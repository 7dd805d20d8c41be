"""All that ``bench predict`` asks for beyond method and words, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from bench.errors import BenchError, check_known, listed
from bench.maps.stretch import Stretch
from bench.maps.view import Area, View
from bench.spec import SegmenterOptions, Shard

FORMATS: Final = {"tif": ".tif", "png": ".png", "gpkg": ".gpkg", "geojson": ".geojson"}
"""Formats of maps and their endings."""
ENDINGS: Final = {ending: name for name, ending in FORMATS.items()} | {".tiff": "tif"}
POLYGONS: Final = {"gpkg": "GPKG", "geojson": "GeoJSON"}
"""Those that hold polygons, and GDAL's drivers for them."""
Depth: TypeAlias = Literal["8bit", "float16"]
"""How probabilities are kept: 8bit in steps of 1/254, or in half precision."""
Blend: TypeAlias = Literal["mean", "gaussian"]
"""How overlapping windows are put together: all alike, or their middle counts more."""


def formats_of(out: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """List the formats that are asked for: by the ending of OUT, then those given."""
    some = given.split(",") if isinstance(given, str) else given
    ending = "" if _is_folder(out) else ENDINGS.get(Path(out).suffix.lower(), "")
    return tuple(dict.fromkeys(name.strip() for name in (ending, *some) if name.strip()))


def map_bases(out: str, images: Sequence[Path]) -> list[Path]:
    """List the path of each image's map without an ending: OUT's own, or in the folder OUT the image's name."""
    ending, folder = Path(out).suffix.lower(), _is_folder(out)
    if ending in ENDINGS and not folder:
        if len(images) > 1:
            raise BenchError(f"-o {out}: one file for several images; give a folder")
        return [Path(out).with_suffix("")]
    if ending and not folder:
        raise BenchError(
            f"-o {out}: maps are written as {', '.join(ENDINGS)}; change the ending, or end the name of a folder with /"
        )
    return [Path(out) / image.stem for image in images]


def _is_folder(out: str) -> bool:
    return Path(out).is_dir() or out.endswith("/")


class Outlines(NamedTuple):
    """How regions become polygons.

    min_area: m²; smaller regions become part of their largest neighbour.
    simplify: metres by which borders may move; two polygons keep the border that they share.
    """

    min_area: float = 0.0
    simplify: float = 0.0


def _numbers(example: str) -> BeforeValidator:
    """As many numbers as there are in the example, by commas."""

    def parse(given: Any) -> Any:
        found = given.split(",") if isinstance(given, str) else given
        if found is not None and len(found) != len(example.split(",")):
            raise ValueError(f"{len(example.split(','))} numbers are needed, as in {example}")
        return found

    return BeforeValidator(parse)


def _formats(text: Any) -> Any:
    return tuple(listed(text, "--format") or ())


class MapSpec(SegmenterOptions):
    """How scenes are looked at, and what is written of them."""

    native: bool | None = None
    """Their own resolution, strip by strip; None: of what is georeferenced."""
    bands: Annotated[tuple[int, int, int] | None, _numbers("4,3,2")] = None
    """Which bands are red, green and blue, from 1, such as 4,3,2 (the first three)."""
    stretch: Annotated[Stretch | None, BeforeValidator(lambda text: Stretch.parse(text) if text else None)] = None
    """Values that become black and white: percentiles of all scenes as in 2,98, values as in 0..3000, minmax, or none
    (2,98 of more than 8 bits)."""
    gsd: float | None = Field(None, gt=0)
    """Metres a pixel at which scenes are worked at, and maps written (their own)."""
    bounds: Annotated[tuple[float, float, float, float] | None, _numbers("left,bottom,right,top")] = None
    """Only this part: left,bottom,right,top in the scene's coordinates."""
    mask: Path | None = None
    """Only inside of these polygons: a GeoJSON file."""
    format: Annotated[tuple[str, ...], BeforeValidator(_formats)] = ()
    """Tif, png, gpkg, geojson, or several (by the ending of OUT; in a folder tif for what is georeferenced)."""
    probabilities: Depth | None = None
    """8bit or float16: also write NAME_probabilities.tif, a band for each class."""
    min_area: float = Field(0.0, ge=0)
    """M² below which a region joins its largest neighbour, in polygons (0)."""
    simplify: float = Field(0.0, ge=0)
    """Metres by which the borders of polygons may move (0)."""
    scores: Path | None = None
    """Also write the scores (queries, H, W) and labels (H0, W0), an .npz; of one image only."""
    blend: Blend = "mean"
    """How overlapping windows are put together: mean, or gaussian, which trusts their middle more (mean)."""
    shard: Shard | None = None
    """Share I of N of the work, from 0; all write to the same folder, the last one puts the maps together."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bands is not None and min(self.bands) < 1:
            raise BenchError(f"--bands {','.join(map(str, self.bands))}: bands are numbered from 1")
        if self.bounds is not None and (self.bounds[0] >= self.bounds[2] or self.bounds[1] >= self.bounds[3]):
            raise BenchError(f"--bounds {','.join(f'{v:g}' for v in self.bounds)}: give left,bottom,right,top")
        for name in self.format:
            check_known(name, FORMATS, f"--format {name}: unknown format")
        if any(name in POLYGONS for name in self.format) and not all(
            map(find_spec, ("shapely", "pyogrio", "rasterio"))
        ):
            raise BenchError(f"--format {','.join(self.format)}: polygons need more; pip install 'ovss-bench[geo]'")
        if self.shard is not None and not 0 <= self.shard[0] < self.shard[1]:
            raise BenchError(f"--shard {self.shard[0]}/{self.shard[1]}: I/N with I from 0 to N-1 is needed, as in 0/4")
        return self

    @property
    def view(self) -> View:
        """How scenes are looked at, but for the levels, which depend on them."""
        area = None if self.mask is None else Area.read(self.mask)
        return View(self.bands, None, self.gsd, self.bounds, area)

    @property
    def outlines(self) -> Outlines:
        """How regions become polygons."""
        return Outlines(self.min_area, self.simplify)
