"""A plug-in that misbehaves at a late call fails alone: the other rows' scores are as without it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Hashable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from reference import tiny_backbone, tiny_model
from torch import Tensor

from bench.errors import SharedStateLost
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Backbone, Features, Trunk
from bench.runtime.shared_tensors import SharedTensors, counting_changes

IMAGE = np.random.default_rng(0).integers(0, 255, (112, 150, 3), dtype=np.uint8)
LATE = 3  # calls before the misdeed: two of the first look, one of the first windows


def endless() -> None:
    while True:
        pass


def raised(error: BaseException) -> None:
    raise error


DEEDS: dict[str, tuple[Callable[[Trunk, Tensor], object], str]] = {
    "windows": (lambda trunk, _: trunk.images.zero_(), "changed the windows"),
    "windows by numpy": (lambda trunk, _: trunk.images.numpy().fill(0), "changed the windows"),
    "rgb": (lambda trunk, _: trunk.rgb.mul_(2), "changed the windows in 0..1"),
    "input": (lambda trunk, _: trunk.input(1).add_(1), "changed the input of block 1"),
    "input by data": (lambda trunk, _: trunk.input(-1).data.mul_(2), "changed the input of block 2"),
    "keys": (lambda trunk, _: trunk.qkv(-1)[1].mul_(2), "changed the queries, keys or values"),
    "values by data": (lambda trunk, _: trunk.qkv(-1)[2].data.mul_(2), "changed the queries, keys or values"),
    "a value by data": (
        lambda trunk, _: trunk.qkv(-1)[2].data[0, 0, 5].__setitem__(3, 7.0),
        "changed the queries, keys or values",
    ),
    "words": (lambda _, text: text.mul_(2), "changed the embeddings"),
    "words by numpy": (lambda _, text: text.numpy().fill(0), "changed the embeddings"),
    "default dtype": (lambda *_: torch.set_default_dtype(torch.float64), "changed the default dtype"),
    "autocast": (lambda *_: torch.autocast("cpu").__enter__(), "changed autocast on cpu"),
    "folder": (lambda *_: os.chdir("/"), "changed the working directory"),
    "exit": (lambda *_: raised(SystemExit(0)), "it raised SystemExit: 0"),
    "generator exit": (lambda *_: raised(GeneratorExit()), "it raised GeneratorExit"),
    "value error": (lambda *_: raised(ValueError("no")), "no"),
    "endless": (lambda *_: endless(), r"longer than 0.2 s; correct it, or give more with --time-limit"),
}


def rows_with(deed: Callable[[Trunk, Tensor], object], time_limit: float | None = None) -> tuple[Segmenter, list[Row]]:
    backbone, calls = Backbone("tiny", deepcopy(tiny_model()), None, ""), [0]  # whose weights a deed may spoil
    shared = SharedTensors()
    with counting_changes():
        text = shared.keep("the embeddings of the words", torch.eye(4, 24))
    classes = torch.arange(4)

    def good(trunk: Trunk) -> Features:
        return trunk.project(trunk.qkv(-1)[1].transpose(1, 2).flatten(2) + trunk.input(-1))

    def bad(trunk: Trunk, text: Tensor) -> Features:
        calls[0] += 1
        if calls[0] > LATE:
            deed(trunk, text)
        return good(trunk)

    one: Any = bad
    bad_row = Row("bad", one, text, classes, takes_text=True, words=shared, time_limit=time_limit)
    first = Row("first", good, text.clone(), classes)
    rows = [first, replace(bad_row, weights=(backbone.weights,)), replace(first, name="last")]
    return Segmenter(backbone, rows, 112, 38, batch=1), rows


@pytest.mark.parametrize("name", DEEDS)
def test_a_late_misdeed_fails_its_own_row(name: str) -> None:
    deed, message = DEEDS[name]
    alone, _ = rows_with(lambda *_: None)
    segmenter, _ = rows_with(deed, 0.2 if name == "endless" else None)
    expected, found = alone.scores(IMAGE), segmenter.scores(IMAGE)
    assert message.split(";")[0] in str(found["bad"]), found["bad"]
    for row in ("first", "last"):
        assert torch.equal(found[row], expected[row]), row


def test_changed_weights_end_the_run() -> None:
    segmenter, _ = rows_with(lambda trunk, _: trunk.visual.proj.mul_(2))
    with pytest.raises(SharedStateLost, match=r"row 'bad' changed the weights \(visual.proj\) in place"):
        segmenter.scores(IMAGE)


def test_weights_that_are_changed_around_torch_end_the_run_before_the_image_is_counted() -> None:
    segmenter, _ = rows_with(lambda trunk, _: trunk.visual.conv1.weight.data.mul_(2))
    with pytest.raises(SharedStateLost, match=r"one of the rows 'bad' changed the weights \(visual.conv1.weight\)"):
        segmenter.scores(IMAGE)


def test_a_method_is_looked_at_once_by_all_segmenters_that_share_what_was_looked_at() -> None:
    known: set[Hashable] = set()
    asked = []

    def method(trunk: Trunk) -> Features:
        asked.append(trunk)
        return Features(trunk.input(-1)[:, 1:, :].mean(2, keepdim=True).expand(-1, -1, 24), None)

    row, backbone = Row("row", method, torch.eye(4, 24), torch.arange(4)), tiny_backbone()
    for calls in (3, 1):
        asked.clear()
        segmenter = Segmenter(backbone, [row], 112, 112)
        segmenter.looked_at = known
        scores = segmenter.scores(IMAGE[:, :112])["row"]
        assert isinstance(scores, Tensor) and len(asked) == calls


def test_random_numbers_are_as_before() -> None:
    segmenter, _ = rows_with(lambda *_: (torch.rand(1), np.random.rand(), random.random()))  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["pos"], random.getstate()  # noqa: NPY002
    assert isinstance(segmenter.scores(IMAGE)["bad"], Tensor)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["pos"], random.getstate()) == before[1:]  # noqa: NPY002


class Counting:
    """A collector that gives what its method says."""

    def __init__(self, value: Callable[[], float]) -> None:
        self.value = value

    def add(self, trunk: Trunk, boxes: object) -> None:
        self.trunk = trunk

    def scores(self, text: Tensor) -> Tensor:
        return torch.full((len(text), 8, 8), self.value())


@pytest.mark.parametrize(("value", "fails"), [(lambda: 0.5, False), (lambda: float(torch.rand(())), True)])
def test_a_collector_with_two_results_is_refused(value: Callable[[], float], fails: bool) -> None:
    class Method:
        def collect(self, image: object) -> Counting:
            return Counting(value)

    method: Any = Method()
    row = Row("collects", method, torch.eye(4, 24), torch.arange(4))
    found = Segmenter(tiny_backbone(), [row], 112, 38).scores(IMAGE)["collects"]
    assert ("it gives two results" in str(found)) == fails, found
