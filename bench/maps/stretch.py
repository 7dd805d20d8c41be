"""Which values of scenes with more than 8 bits become black and white."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.maps.scene import decoding, is_8_bit, opened
from bench.maps.view import Levels, chosen_bands

_SIDE: Final = 1024  # pixels of the thumbnail of one scene that is looked at; of many scenes less each


class Stretch(NamedTuple):
    """How levels are found. low, high: percentiles of each band, or values, or nothing for smallest and largest."""

    kind: Literal["percentiles", "values", "minmax", "none"]
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Stretch:
        """Read "2,98" (percentiles), "0..3000" (values), "minmax" or "none". ValueError for anything else.

        >>> Stretch.parse("2,98")
        Stretch(kind='percentiles', low=2.0, high=98.0)
        >>> Stretch.parse("0..3000")
        Stretch(kind='values', low=0.0, high=3000.0)
        """
        if text in ("minmax", "none"):
            return cls(text)  # type: ignore[arg-type]  # mypy does not see which of the words it is
        kind: Literal["values", "percentiles"] = "values" if ".." in text else "percentiles"
        try:
            low, high = map(float, text.split(".." if kind == "values" else ","))
        except ValueError:
            low = high = math.nan
        top = math.inf if kind == "values" else 100
        if not (low < high and math.isfinite(low) and math.isfinite(high)) or (
            kind == "percentiles" and not 0 <= low < high <= top
        ):
            raise ValueError("give percentiles as in 2,98, values as in 0..3000, minmax or none")
        return cls(kind, low, high)


DEFAULT: Final = Stretch("percentiles", 2.0, 98.0)


def levels_of(
    files: Sequence[Path], bands: tuple[int, int, int] | None, stretch: Stretch | None
) -> list[Levels | None]:
    """Find the levels that these scenes share, from thumbnails (overviews where a file has some).

    stretch: None: `DEFAULT` of those that are not of 8 bits. Returns levels of each scene, None where values stay as
    they are.
    """
    if stretch is not None and stretch.kind == "none":
        return [Levels((0.0,) * 3, (255.0,) * 3)] * len(files)
    if stretch is not None and stretch.kind == "values":
        return [Levels((stretch.low,) * 3, (stretch.high,) * 3)] * len(files)
    side = max(64, _SIDE // math.ceil(math.sqrt(max(1, len(files)))))
    samples = {}
    for file in files:
        with contextlib.ExitStack() as stack:
            try:
                scene = stack.enter_context(opened(file))
            except BenchError:
                if stretch is None:
                    continue  # it is answered when it is looked at as a scene
                raise
            if stretch is not None or not is_8_bit(scene):
                samples[file] = _thumbnail(file, scene, bands, side)
    if not samples:
        return [None] * len(files)
    together = np.concatenate([*samples.values()], axis=1)
    if not together.shape[1]:
        raise BenchError(
            f"{next(iter(samples))}: holds no data to take --stretch from; give values, as in --stretch 0..3000"
        )
    stretch = stretch or DEFAULT
    ends = (0.0, 100.0) if stretch.kind == "minmax" else (stretch.low, stretch.high)
    low, high = np.percentile(together, ends, axis=1)
    levels = Levels(tuple(map(float, low)), tuple(map(float, high)))
    return [levels if file in samples else None for file in files]


def _thumbnail(file: Path, scene: Any, bands: tuple[int, int, int] | None, side: int) -> NDArray[np.float32]:
    """Values (3, n) of pixels that hold data."""
    try:
        wanted = list(chosen_bands(scene.count, bands))
    except ValueError as error:
        raise BenchError(f"{file}: {error}") from None
    shrink = max(1.0, max(scene.height, scene.width) / side)
    shape = max(1, round(scene.height / shrink)), max(1, round(scene.width / shrink))
    with decoding(str(file)):
        found: NDArray[Any] = scene.read(wanted, out_shape=(3, *shape)).astype(np.float32)
        held = scene.read_masks(sorted(set(wanted)), out_shape=(len(set(wanted)), *shape)).any(axis=0)
    return np.asarray(found[:, held & np.isfinite(found).all(axis=0)], np.float32)
