"""Progress of a run on the screen, and for the experiment trackers of `--log-to`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.runtime.room import time_text
from bench.runtime.trackers import PAUSE, Tracker, open_tracker

if TYPE_CHECKING:
    from bench.evaluation.dataset_run import Progress, Run

SILENCE = 60.0  # seconds between two lines where there is no terminal


class Bars:
    """Progress of a run on the standard error.

    On a terminal a bar for each dataset and the time that the whole run has left; else a line per minute and one at the
    end of each dataset. unit: what is counted. done: images of all datasets together.
    """

    def __init__(self, shown: bool, unit: str = "image") -> None:
        self._shown, self._unit = shown, unit
        self._terminal = sys.stderr.isatty()
        self._words = 0
        self._bar: Any = None
        self._images = self.done = 0
        self._started = self._printed = time.monotonic()
        self._last: Progress | None = None

    def expect(self, images: int) -> None:
        """Set how many images the whole run has at most; its time starts now."""
        self._images = images
        self._started = self._printed = time.monotonic()

    def word(self, word: str) -> None:
        """Count one more word whose text is encoded."""
        self._words += 1
        if self._shown and self._terminal:
            print(f"\rencoding prompt words, {self._words} so far: {word:<40}", end="", file=sys.stderr)

    def images(self, progress: Progress) -> None:
        """Count one more image of a dataset."""
        if not self._shown:
            return
        if self._last is not None and self._last.dataset != progress.dataset:
            self._end_bar()
        self.done += progress.done - (self._last.done if self._last else 0)
        self._last = progress
        title = f"{progress.dataset} ({progress.number} of {progress.datasets})"
        left = self._left(self.done)
        if self._terminal:
            self._draw(progress, title, left)
        elif progress.done and time.monotonic() - self._printed >= SILENCE:
            self._printed = time.monotonic()
            print(
                f"{title}: {progress.done} of {progress.total} {self._unit}s{left and f', {left} left in all'}",
                file=sys.stderr,
            )

    def close(self) -> None:
        """End the line."""
        if self._words and self._shown and self._terminal:
            print(file=sys.stderr)
        self._words = 0
        self._end_bar()

    def _draw(self, progress: Progress, title: str, left: str) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=progress.total, desc=title, unit=self._unit, smoothing=0.1, dynamic_ncols=True)
        self._bar.set_postfix_str(left and f"all: {left} left", refresh=False)
        self._bar.update(progress.done - self._bar.n)

    def _left(self, done: int) -> str:
        """Estimate of the time that the whole run still takes."""
        elapsed = time.monotonic() - self._started
        if not done or not self._images or elapsed < 5:
            return ""
        return time_text(elapsed / done * max(0, self._images - done))

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._last is not None and not self._terminal:
            last = self._last
            print(
                f"{last.dataset} ({last.number} of {last.datasets}): {last.done} of {last.total} {self._unit}s",
                file=sys.stderr,
            )
        self._last = None


class RunLog:
    """Progress during a run, then the scores of its rows and the leaderboard."""

    def __init__(self, flags: Sequence[str]) -> None:
        self._flags = flags
        self._trackers: list[Tracker] = []
        self._reported = 0.0
        self._step = 0

    def start(self, run: Run) -> None:
        """Open the trackers. BenchError where one cannot be opened."""
        facts = {
            "rows": sorted(run.rows),
            "datasets": [dataset.card.name for dataset in run.datasets],
            "results": str(run.store.folder),
            "device": run.models.device,
            "dtype": run.models.dtype,
            "demo": run.store.demo,
        }
        self._trackers = [open_tracker(flag, facts) for flag in self._flags]
        self._reported = time.monotonic()

    def images(self, progress: Progress, done: int) -> None:
        """Report one more image of a dataset, `done` in all."""
        self._step = done
        if progress.done == progress.total or time.monotonic() - self._reported >= PAUSE:
            self._reported = time.monotonic()
            values = {f"images/{progress.dataset}": float(progress.done), "images": float(done)}
            for tracker in self._trackers:
                tracker.numbers(done, values)

    def finish(self, run: Run) -> None:
        """Report the scores of the run's rows in per cent, and the table that it ends with."""
        if not self._trackers:
            return
        from bench.config import load_config
        from bench.report.scores import scores_of
        from bench.report.summary import summary_table

        store, config = run.store, load_config(run.spec.config)
        shown = [dataset.card.name for dataset in run.datasets if dataset.samples]
        scores = {
            f"score/{dataset}/{row}": 100 * score.value
            for (row, dataset), score in scores_of(store, config, run.spec.cards, shown).items()
            if row in run.rows and score.complete
        }
        for tracker in self._trackers:
            if scores:
                tracker.numbers(self._step, scores)
            tracker.text("scores", summary_table(store, run.rows, shown, config, run.spec.cards))

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()
        self._trackers = []
