"""Equal windows of an image, and what the rows that look at them share: trunk, features, upsampler."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bench.errors import BenchError, SharedStateLost
from bench.inference.row import Found, Row
from bench.inference.windows import pad_to_multiple
from bench.models.tower import Tower, Windows
from bench.models.upsamplers import ScoreRequest, Upsampler
from bench.runtime.device import is_out_of_memory
from bench.runtime.threads import in_threads
from bench.runtime.timing import stage


class Failures(dict[str, Exception]):
    """Name of a row -> what it raised on an image. shrinks: memory that runs out is raised, for a smaller batch."""

    def __init__(self, shrinks: bool) -> None:
        super().__init__()
        self._shrinks = shrinks

    @contextlib.contextmanager
    def of(self, names: Iterable[str]) -> Iterator[None]:
        """Note what is raised inside as the failure of these rows."""
        try:
            yield
        except Exception as error:  # a plug-in may raise anything
            if isinstance(error, SharedStateLost) or (is_out_of_memory(error) and self._shrinks):
                raise
            self.update(dict.fromkeys(names, error))


def multiple_of(backbone: Tower, row: Row, height: int, width: int) -> int:
    """Return the number that both window sides must be multiples of, for the tower and second models."""
    sizes = [model.patch_size for model in row.models.values() if model.side is None]
    multiple = math.lcm(backbone.patch_size, *sizes)
    return backbone.patch_size if height % multiple == 0 and width % multiple == 0 else multiple


def window_batches(backbone: Tower, windows: Tensor, rows: Sequence[Row]) -> Iterator[WindowBatch]:
    """Yield the windows (B, 3, h, w) for all rows; rows whose second model needs wider padding share another batch."""
    by_multiple: dict[int, list[Row]] = {}
    for row in rows:
        by_multiple.setdefault(multiple_of(backbone, row, *windows.shape[2:]), []).append(row)
    for multiple, together in by_multiple.items():
        yield WindowBatch(backbone, windows, together, multiple)


class WindowBatch:
    """A batch of equal windows, padded, with their trunk, for rows that share them."""

    def __init__(self, backbone: Tower, windows: Tensor, rows: Sequence[Row], multiple: int) -> None:
        """windows: (B, 3, h, w), normalised. multiple: of which their sides are made multiples."""
        self.backbone = backbone
        self.windows = windows
        self.rows = rows
        self.padded, self.inside = pad_to_multiple(windows, multiple)
        self.trunk: Windows = backbone.trunk(self.padded)

    def features(self, failures: Failures) -> dict[str, Found]:
        """Ask the methods of all rows about the windows, once for rows that may share the answer."""
        sharing: dict[Hashable, list[Row]] = {}
        for row in self.rows:
            if row.name not in failures and not row.collects:
                sharing.setdefault(row.feature_key, []).append(row)
        found: dict[str, Found] = {}
        for rows in sharing.values():
            names = [row.name for row in rows]
            with failures.of(names), stage("last block"):
                found |= dict.fromkeys(names, rows[0].features(self.trunk))
        return found

    def scores(self, found: Mapping[str, Found], failures: Failures) -> dict[str, Tensor]:
        """Scores (B, Q, h, w) float32 of the windows for all rows with features, debiased."""
        rows = [row for row in self.rows if row.name in found]
        at_pixels = self._at_pixels(rows, found, failures)
        inside, batch = self.inside, self.windows
        scores: dict[str, Tensor] = {}
        for row in rows:
            if row.name in failures:
                continue
            with failures.of([row.name]), stage("scores"):
                maps = row.scores(found[row.name], self.trunk, at_pixels.pop(row.name, None))
                maps = maps[..., inside.top : inside.bottom, inside.left : inside.right]
                wanted = (len(batch), len(row.classes), *batch.shape[2:])
                if maps.shape != wanted or maps.device != batch.device:
                    raise BenchError(
                        f"its scores are {tuple(maps.shape)} on {maps.device}, not {wanted} on {batch.device}"
                    )
                scores[row.name] = maps.float()
        return scores

    def _at_pixels(self, rows: Sequence[Row], found: Mapping[str, Found], failures: Failures) -> dict[str, Tensor]:
        """Cosines (B, H, W, Q) of upsampled features, together for the rows of one upsampler on one grid."""
        together: dict[tuple[Upsampler, tuple[int, int]], dict[str, ScoreRequest]] = {}
        for row in rows:
            features = found[row.name]
            if row.upsampler is not None and not isinstance(features, Tensor):
                with failures.of([row.name]):
                    key = row.upsampler, features.grid or self.trunk.grid
                    together.setdefault(key, {})[row.name] = row.request(features)
        maps: dict[str, Tensor] = {}
        for (upsampler, grid), requests in together.items():
            of_upsampler = [row for row in rows if row.name in requests]
            with failures.of(requests), of_upsampler[0].guarded(self.trunk):
                maps |= zip(requests, self._upsampled(upsampler, grid, list(requests.values())), strict=True)
        return maps

    def _upsampled(self, upsampler: Upsampler, grid: tuple[int, int], requests: Sequence[ScoreRequest]) -> list[Tensor]:
        """Cosines (B, H, W, Q) of each request."""
        guidance = self.trunk.guidance(upsampler.statistics)

        def scores_of(windows: slice) -> list[Tensor]:
            asked = [
                ScoreRequest(
                    one.patches[windows].clone(), one.text.clone(), None if one.shift is None else one.shift[windows]
                )
                for one in requests
            ]
            return upsampler.prepare(guidance[windows], grid)(asked)

        if self.padded.device.type != "cpu":
            return scores_of(slice(None))
        # One window per core; where there are more cores than windows, all of them work at the strips of one.
        windows = [slice(number, number + 1) for number in range(len(self.padded))]
        pieces = (
            in_threads(scores_of, windows)
            if len(windows) >= torch.get_num_threads()
            else [scores_of(window) for window in windows]
        )
        return [torch.cat(maps) for maps in zip(*pieces, strict=True)]
