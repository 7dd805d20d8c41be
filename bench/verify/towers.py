"""Stored outputs of the released code of towers that are no CLIP, against what this machine computes.

Each golden is a mapping as `bench.verify.goldens.stored` reads it: image, words and settings, labels with the pixels
that are left out, and arrays of which every n-th value is kept (`NAME_strideN`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.windows import squashed_size, window_boxes
from bench.models.collector import WholeImage
from bench.models.text import Vocabulary
from bench.registry import load_methods

Golden: TypeAlias = Mapping[str, NDArray[Any]]
BOUNDS: Final = {
    "query_scores": 6e-5,
    "pgrf": 6e-5,
    "window0": 1e-5,
    "stitched": 2e-5,
    "aggregated": 2e-4,
    "probabilities": 1.8e-5,
    "window0_tokens": 1e-5,
    "window0_class_logits": 2e-5,
    "class_logits": 2e-5,
}
"""Greatest difference of an array: twice what independent implementations reach."""


class Compared(NamedTuple):
    """One golden: greatest difference of each array, and labels that differ where the golden is clear."""

    apart: dict[str, float]
    labels: int

    @property
    def good(self) -> bool:
        """True where all arrays are within their bounds and no clear label differs."""
        return bool(self.apart) and all(apart <= bound(key) for key, apart in self.apart.items()) and not self.labels


def cases(stored: Golden) -> Iterator[tuple[str, Golden]]:
    """Name and arrays of each golden of a file that holds several, "NAME/array"."""
    for name in sorted({key.partition("/")[0] for key in stored}):
        yield name, {key.partition("/")[2]: stored[key] for key in stored if key.startswith(f"{name}/")}


def compare(name: str, golden: Golden, device: str = "cpu") -> Compared:
    """Compare a golden, whose name starts with its library or method. BenchError where a package is missing."""
    found, row = _COMPUTED[name.partition("_")[0]](golden, device)
    apart = {key: _apart(key, golden[key], found) for key in golden if key.partition("_stride")[0] in found}
    scores = found["query_scores"]
    labels = row.label_map(scores, (golden["label"].shape[0], golden["label"].shape[1]))
    unclear = np.unpackbits(golden["ambiguous_packed"])[: labels.size].reshape(labels.shape).astype(bool)
    return Compared(apart, int(((labels != golden["label"]) & ~unclear).sum()))


def bound(key: str) -> float:
    """Return how far an array may be from the golden."""
    return BOUNDS[key.partition("_stride")[0]]


def _apart(key: str, expected: NDArray[Any], found: Mapping[str, Tensor]) -> float:
    name, _, stride = key.partition("_stride")
    every = slice(None, None, int(stride or 1))
    values = found[name].float().cpu().numpy()
    chosen = values[every] if values.ndim == 2 else values[..., every, every]
    return float(np.abs(chosen - expected).max())


def _hundredths(value: NDArray[Any]) -> float:
    return round(float(value), 2)


def _row(golden: Golden, name: str, method: Any, text: Tensor, classes: Tensor, scale: float = 0.0) -> Row:
    threshold, background = _hundredths(golden["thd"]), int(golden["background"])
    return Row(name, method, text, classes, scale=scale, threshold=threshold, background=background)


def _sam3(golden: Golden, device: str) -> tuple[dict[str, Tensor], Row]:
    from bench.models.towers.sam3 import tiny_sam3

    tower, words = tiny_sam3("sam3", int(golden["seed"]), device), Vocabulary.parse(str(golden["words"]))
    options = {"confidence": _hundredths(golden["conf"])}
    parts = {"semantic": bool(golden["use_sem_seg"]), "presence": bool(golden["use_presence_score"])}
    classes = torch.tensor(words.classes, device=device)
    rows = []
    of_rows: dict[str, dict[str, Any]] = {"query_scores": parts, "pgrf": {"fusion": "pgrf"}}
    for name, own in of_rows.items():
        method: Any = load_methods()["segearth-ov3"].build({**options, **own})
        rows.append(_row(golden, name, method, method.encode_text(tower, words), classes))
    segmenter = Segmenter(tower, rows, int(golden["crop"]), max(1, int(golden["stride"])), batch=3)
    return _scores(segmenter, golden), rows[0]


def _scores(segmenter: Segmenter, golden: Golden) -> dict[str, Tensor]:
    found = {}
    for name, scores in segmenter.scores(golden["image"]).items():
        if isinstance(scores, Exception):
            raise scores
        found[name] = scores
    return found


def _radseg(golden: Golden, device: str) -> tuple[dict[str, Tensor], Row]:
    from bench.models.towers.radio import tiny_radio

    tower, text = tiny_radio("radio", int(golden["seed"]), device), torch.from_numpy(golden["text"]).to(device)
    method: Any = load_methods()["radseg"].build({"denoise": round(float(golden["denoise"]), 6)})
    row = Row("radseg", method, text, torch.arange(len(text), device=device), scale=0.0)
    crop, stride, size = int(golden["crop"]), int(golden["stride"]), (int(golden["size"][0]), int(golden["size"][1]))
    pixels = tower.normalise(torch.from_numpy(golden["image"]))
    network = squashed_size(pixels.shape[1], pixels.shape[2], row.multiple(stride), crop)
    pixels = F.interpolate(pixels[None], size=network, mode="bilinear")[0]
    boxes = window_boxes(pixels.shape[1], pixels.shape[2], crop, stride)
    collector = method.collect(WholeImage(pixels, boxes, tower.patch_size, None, {}, _unstitched, size))
    with torch.inference_mode():
        trunks = [tower.trunk(pixels[None, :, box.top : box.bottom, box.left : box.right]) for box in boxes]
        for trunk, box in zip(trunks, boxes, strict=True):
            collector.add(trunk, [box])
        found = {"window0": method.features(trunks[0])[0], "stitched": collector.stitched()}
        found |= {"aggregated": collector.aggregated(), "probabilities": collector.probabilities(text)}
    scores = Segmenter(tower, [row], crop, stride, batch=3).scores(golden["image"], size=size)["radseg"]
    if isinstance(scores, Exception):
        raise scores
    return found | {"query_scores": scores}, row


def _vip(golden: Golden, device: str) -> tuple[dict[str, Tensor], Row]:
    from bench.models.towers.dinotxt import tiny_dinotxt

    tower, words = tiny_dinotxt("dinotxt", int(golden["seed"]), device), Vocabulary.parse(str(golden["words"]))
    options = {"tau": float(golden["tau"]), "temperature": float(golden["temperature"])}
    method: Any = load_methods()["vip"].build({**options, "sharpness": float(golden["scale"])})
    text = method.given(list(torch.from_numpy(golden["text"]).to(device)), words)
    row = _row(golden, "class_logits", method, text, torch.arange(words.size, device=device), 1.0)
    found = _scores(Segmenter(tower, [row], 336, 112, batch=3), golden)
    trunk = tower.trunk(tower.normalise(torch.from_numpy(golden["image"]))[None, :, :336, :336])
    with torch.inference_mode():
        found["window0_tokens"] = method.tokens(trunk)[0]
        enlarged = F.interpolate(method.scores(trunk, text), size=(336, 336), mode="bilinear")
    return found | {"window0_class_logits": enlarged[0], "query_scores": found["class_logits"]}, row


def _unstitched(scores: Tensor) -> Tensor:
    return scores


_COMPUTED: Final[dict[str, Callable[[Golden, str], tuple[dict[str, Tensor], Row]]]] = {
    "sam3": _sam3,
    "radseg": _radseg,
    "vip": _vip,
}
