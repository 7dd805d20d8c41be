"""Measure what the checks cost: of plug-ins on a tower of ViT-B/16's size, of a run of the demo, and of `tables`.

    OMP_NUM_THREADS=1 python -m tools.check_cost

Each line is the processor time with checks over that without, measured in turns, each in a forked process.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import numpy as np
import torch

import bench
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Backbone
from bench.models.clip_weights import random_clip
from bench.registry import load_methods
from bench.runtime.shared_tensors import SharedTensors
from bench.store.count_table import decode

TURNS = 5


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Inside, plug-ins are not watched, and stored files not compared with their checksums and ranges."""
    with contextlib.ExitStack() as patches:
        for name, instead in {
            "bench.inference.row.Row.guarded": lambda *_, **__: contextlib.nullcontext(),
            "bench.runtime.shared_tensors.SharedTensors.keep": lambda _, name, tensor: tensor,
            "bench.store.count_files.read_file": lambda file, record, columns: decode(
                file.read_bytes(), record.fingerprint, columns
            ),
            "bench.store.record.unsealed": lambda data, known=(): json.loads(data),
        }.items():
            patches.enter_context(patch(name, instead))
        yield


def seconds(work: Callable[[], object], checked: bool) -> float:
    """Processor time of some work in a forked process."""
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with contextlib.nullcontext() if checked else unchecked():
            work()
        os._exit(0)
    _, status, used = os.wait4(process, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


def windows() -> Callable[[], object]:
    """Four rows without upsampler on the nine windows of an image."""
    backbone, methods = Backbone("random", random_clip("ViT-B-16"), None, ""), load_methods()
    text, classes = torch.eye(8, backbone.dim), torch.arange(8)
    image = np.random.default_rng(0).integers(0, 255, (448, 448, 3), dtype=np.uint8)

    def work() -> None:
        words = SharedTensors()
        rows = [
            Row(
                name,
                methods[name].build({}),
                words.keep("words", text),
                classes,
                words=words,
                weights=[backbone.weights],
            )
            for name in ("clip", "maskclip", "sclip", "clearclip")
        ]
        segmenter = Segmenter(backbone, rows, 224, 112)
        for _ in range(3):  # images: the first one is looked at more closely
            segmenter.scores(image)

    return work


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = partial(bench.run, ["clip", "sclip"], demo=True, limit=8, workers=0, fresh=True, results=folder)
        run()
        tables = partial(bench.tables, folder)
        works: dict[str, Callable[[], object]] = {"plug-ins": windows(), "a run of the demo": run, "tables": tables}
        for name, work in works.items():
            pairs = [(seconds(work, True), seconds(work, False)) for _ in range(TURNS)]
            ratios = sorted(one / other - 1 for one, other in pairs)
            cost, (low, high) = statistics.median(ratios), (ratios[TURNS // 4], ratios[-1 - TURNS // 4])
            print(f"{name}: {100 * cost:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {pairs[0][1]:.1f} s")


if __name__ == "__main__":
    main()
