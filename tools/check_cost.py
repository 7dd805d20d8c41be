"""Measure what the checks cost: of plug-ins on a tower of ViT-B/16's size, of a run of the demo, and of `tables`.

    OMP_NUM_THREADS=1 python -m tools.check_cost

Each line is the processor time with checks over that without, measured in turns.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
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

TURNS = 7


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Inside, plug-ins are neither watched nor asked twice, stored files not held against checksums and ranges."""
    with contextlib.ExitStack() as patches:
        for name, instead in {
            "bench.inference.row.Row.guarded": lambda *_, **__: contextlib.nullcontext(),
            "bench.inference.segmenter.look_at": lambda *_: None,
            "bench.runtime.shared_tensors.SharedWeights.differs": lambda _: torch.tensor(False),
            "bench.runtime.shared_tensors.SharedTensors.keep": lambda _, name, tensor, handed_out=True: tensor,
            "bench.runtime.shared_tensors.SharedTensors.hand_out": lambda _, tensor: tensor,
            "bench.store.count_files.read_file": lambda file, record, columns: decode(
                file.read_bytes(), record.fingerprint, columns
            ),
            "bench.store.record.unsealed": lambda data, known=(): {},
        }.items():
            patches.enter_context(patch(name, instead))
        yield


def forked(work: Callable[[], object]) -> float:
    """Processor time of some work in a process that has read nothing yet."""
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work()
        os._exit(0)
    _, status, used = os.wait4(process, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], object]) -> float:
    """Processor time of some work here."""
    before = time.process_time()
    work()
    return time.process_time() - before


def windows() -> Callable[[], object]:
    """Four rows without upsampler on the nine windows of an image, after an image that is looked at more closely."""
    backbone, methods = Backbone("random", random_clip("ViT-B-16"), None, ""), load_methods()
    text, classes, words = torch.eye(8, backbone.dim), torch.arange(8), SharedTensors()
    rows = [
        Row(name, methods[name].build({}), words.keep("words", text), classes, words=words, weights=[backbone.weights])
        for name in ("clip", "maskclip", "sclip", "clearclip")
    ]
    segmenter = Segmenter(backbone, rows, 224, 112)
    work = partial(segmenter.scores, np.random.default_rng(0).integers(0, 255, (448, 448, 3), dtype=np.uint8))
    work()
    return work


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = partial(bench.run, ["clip", "sclip"], demo=True, limit=8, workers=0, fresh=True, results=folder)
        run()
        works: dict[str, tuple[Callable[[], object], Callable[[Callable[[], object]], float]]] = {
            "plug-ins": (windows(), timed),
            "a run of the demo": (run, forked),
            "tables": (partial(bench.tables, folder), forked),
        }
        for name, (work, measure) in works.items():
            pairs = []
            for _ in range(TURNS):
                checked = measure(work)
                with unchecked():
                    pairs.append((checked, measure(work)))
            ratios = sorted(one / other - 1 for one, other in pairs)
            cost, (low, high) = statistics.median(ratios), (ratios[TURNS // 4], ratios[-1 - TURNS // 4])
            print(f"{name}: {100 * cost:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {pairs[0][1]:.1f} s")


if __name__ == "__main__":
    main()
