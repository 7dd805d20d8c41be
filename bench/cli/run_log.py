"""Reports of `bench run --log-to` to experiment trackers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.runtime.trackers import PAUSE, Tracker, open_tracker

if TYPE_CHECKING:
    from bench.evaluation.dataset_run import Progress, Run


class RunLog:
    """Progress during a run, then the scores of its rows and the leaderboard."""

    def __init__(self, flags: Sequence[str]) -> None:
        self._flags = flags
        self._trackers: list[Tracker] = []
        self._reported = self._earlier = 0.0
        self._last: Progress | None = None

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

    def images(self, progress: Progress) -> None:
        """Count one more image of a dataset."""
        if self._last is not None and self._last.dataset != progress.dataset:
            self._earlier += self._last.done
        self._last = progress
        if progress.done == progress.total or time.monotonic() - self._reported >= PAUSE:
            self._reported = time.monotonic()
            values = {f"images/{progress.dataset}": float(progress.done), "images": self._earlier + progress.done}
            for tracker in self._trackers:
                tracker.numbers(int(self._earlier + progress.done), values)

    def finish(self, run: Run) -> None:
        """Report the scores of the run's rows in per cent, and the table that it ends with."""
        if not self._trackers:
            return
        from bench.config import load_config
        from bench.report.scores import scores_of
        from bench.report.summary import summary_table

        store, config = run.store, load_config(run.spec.config)
        shown = [dataset.card.name for dataset in run.datasets if dataset.samples]
        step = int(self._earlier + (self._last.done if self._last else 0))
        scores = {
            f"score/{dataset}/{row}": 100 * score.value
            for (row, dataset), score in scores_of(store, config, run.spec.cards, shown).items()
            if row in run.rows and score.complete
        }
        for tracker in self._trackers:
            if scores:
                tracker.numbers(step, scores)
            tracker.text("scores", summary_table(store, run.rows, shown, config, run.spec.cards))

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()
        self._trackers = []
