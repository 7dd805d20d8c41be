"""The stored reference against what this machine computes: text, tokens, upsampled features, scores, labels, counts."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.config import BackboneSpec, UpsamplerSpec, load_config
from bench.data.loader import Loaded
from bench.evaluation.loop import Scoring, counted
from bench.evaluation.models import ModelCache, build_row, build_segmenter
from bench.inference.segmenter import Segmenter
from bench.metrics import Ints, moved_pixels, probability_histogram
from bench.models.text import Vocabulary
from bench.models.upsamplers import BilateralUpsampler
from bench.paths import shipped
from bench.registry import load_methods
from bench.settings import ResizeRule, Settings
from bench.verify import recipe, towers


class Reference(NamedTuple):
    """One row of the reference: method, its options, upsampler or "none", λ."""

    method: str
    options: dict[str, Any]
    upsampler: str
    debias: float


_KEEP: Final = {"residual": "keep"}
RUNS: Final = {  # by the name that the reference has for them
    "vanilla_res": Reference("clip", {}, "none", 0.0),
    "maskclip": Reference("maskclip", {}, "none", 0.0),
    "sclip": Reference("sclip", {}, "none", 0.0),
    "sclip_res": Reference("sclip", _KEEP, "none", 0.0),
    "gem": Reference("gem", {}, "none", 0.0),
    "gem_res": Reference("gem", _KEEP, "none", 0.0),
    "clearclip": Reference("clearclip", {}, "none", 0.0),
    "segearth_plain": Reference("segearth-ov", {}, "none", 0.0),
    "segearth_cls": Reference("segearth-ov", {}, "none", 0.3),
    "segearth_up": Reference("segearth-ov", {}, "jbu_one", 0.0),
    "segearth_ov": Reference("segearth-ov", {}, "jbu_one", 0.3),
    "maskclip_ours": Reference("maskclip", {}, "jbu_one", 0.3),
    "sclip_ours": Reference("sclip", {}, "jbu_one", 0.3),
    "clearclip_ours": Reference("clearclip", {}, "jbu_one", 0.3),
    "segearth_featup": Reference("segearth-ov", {}, "jbu_stack", 0.3),
}
TOKENS: Final[dict[str, tuple[str, dict[str, Any]]]] = {  # the reference's name of a token map -> method and options
    "vanilla/ir0": ("clip", {}),
    "MaskCLIP/ir1": ("maskclip", {}),
    "SCLIP/ir1": ("sclip", {}),
    "SCLIP/ir0": ("sclip", _KEEP),
    "ClearCLIP/ir1": ("clearclip", {}),
    "SegEarth/ir1": ("segearth-ov", {}),
    "NACLIP/ir1": ("naclip", {"sigma": 1.0}),
    "GEM/ir1": ("gem", {}),
    "GEM/ir0": ("gem", _KEEP),
}
TOKEN_STEP, PIXEL_STEP, SCORE_STEP, LABEL_STEP = 7, 18, 20, 4  # every n-th is stored


@dataclass(frozen=True)
class Bounds:
    """How far a machine may be from the reference: greatest differences, and pixels per million."""

    tokens: float
    features: float
    scores: float
    labels: float
    bins: float


# fp32: the tolerances that the reference states, and what ties may move; two CPUs and a GPU stay below a tenth of them.
# The others: about four times what was measured, for rounding differs between CPUs and GPUs.
BOUNDS: Final = {
    "fp32": Bounds(1e-4, 1e-4, 2e-5, 50, 200),
    "tf32": Bounds(5e-2, 5e-2, 2e-3, 10_000, 200_000),
    "fp16": Bounds(5e-2, 5e-2, 2e-3, 10_000, 200_000),
    "bf16": Bounds(4e-1, 4e-1, 1.5e-2, 40_000, 500_000),
}
_FEW = 400.0  # pixels per million of the labels that are stored: five of a run's 12,544


@dataclass(frozen=True)
class Check:
    """One comparison: how far something is from the reference, how far it may be, and where it is worst."""

    what: str
    found: float
    unit: str
    bound: float
    worst: str = ""

    @property
    def good(self) -> bool:
        """True within its bound; what is not a number is not."""
        return self.found <= self.bound


Arrays = dict[str, NDArray[Any]]


def stored(name: str) -> Arrays:
    """Arrays of tests/golden/<name>.npz: "released" (made by the authors' code) or "rows" (by this project's)."""
    with np.load(shipped("tests/golden") / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


class Bed:
    """The models of the reference on one device, in one dtype."""

    def __init__(self, device: str, dtype: str, batch: int = 4) -> None:
        self.batch = batch
        kinds = ("jbu_one", "jbu_stack")
        config = load_config().model_copy(
            update={
                "backbones": {"tiny": BackboneSpec(model=str(recipe.config_file()))},
                "upsamplers": {kind: UpsamplerSpec(kind=kind) for kind in kinds},
            }
        )
        config = config.model_copy(update={"protocol": config.protocol.model_copy(update={"backbone": "tiny"})})
        released = stored("released")
        words = tuple(str(name) for name in released["text/names"])
        vocabulary = Vocabulary(words, tuple(int(index) for index in released["text/query_idx"]))
        with tempfile.TemporaryDirectory() as folder:
            weights, files = Path(folder) / "tiny.pt", {kind: Path(folder) / f"{kind}.pt" for kind in kinds}
            torch.save(recipe.clip_state(), weights)
            for kind, file in files.items():
                torch.save(recipe.upsampler_checkpoint(kind), file)
            self.models = ModelCache(config, load_methods([]), weights, files, device, dtype)
            self.upsamplers = {kind: self.models.upsampler(kind, recipe.DIM)[0] for kind in kinds}
            self.rows = [build_row(_settings(name), vocabulary.words, self.models) for name in RUNS]
        self.backbone = self.models.clip("tiny")
        self.methods = self.models.methods
        self.text, self.classes = self.rows[0].text, self.rows[0].classes

    def tokens(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Name and values of each token map of the reference's window: (196, 128), and (128,) of its CLS."""
        window = self.backbone.normalise(torch.from_numpy(recipe.image()[recipe.WINDOW]))[None]
        with torch.inference_mode():
            trunk = self.backbone.trunk(window)
            yield "after_ln_pre", trunk.input(0)[0].cpu().numpy()
            yield "last_block_input", trunk.input(-1)[0].cpu().numpy()
            for name, (method, options) in TOKENS.items():
                features = self.methods[method].build(options)(trunk)
                yield f"{name}/tokens", features.patches[0].cpu().numpy()
                if features.cls is not None and method != "gem":  # GEM's code has none
                    yield f"{name}/cls", features.cls[0].cpu().numpy()

    def features(self, kind: str, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Upsampled features (128, 224, 224) of stored tokens (196, 128), by way of the operator."""
        upsampler = self.upsamplers[kind]
        assert isinstance(upsampler, BilateralUpsampler)
        guidance = self.backbone.normalise(torch.from_numpy(recipe.image()[recipe.WINDOW]))[None]
        with torch.inference_mode():
            weight, bias = upsampler.projection
            low = torch.from_numpy(tokens).to(guidance.device)[None]
            high = upsampler.operator(guidance, (14, 14)).matrix() @ low
            high = high + 0.1 * (high @ weight.T + bias)
        array: NDArray[np.float32] = high[0].T.reshape(recipe.DIM, 224, 224).cpu().numpy()
        return array

    def segmenter(self) -> Segmenter:
        """All runs, on 448 x 448 with windows of 224."""
        return build_segmenter(self.rows, _settings(next(iter(RUNS))), self.models, self.batch)

    def outputs(self) -> tuple[dict[str, NDArray[np.float32]], dict[str, Ints]]:
        """Stitched cosine scores (14, 448, 448) of each run, and dense histograms (K + 1, K, 100) as it counts them."""
        classes, segmenter = int(self.classes.max()) + 1, self.segmenter()
        loaded = Loaded(0, "image", recipe.label(classes), {size: recipe.image() for size in segmenter.sizes})
        scores: dict[str, NDArray[np.float32]] = {}
        counts: dict[str, Ints] = {}
        for group in next(segmenter.stitched([segmenter.prepared(recipe.image())]))[0]:
            scores |= zip((row.name for row in group.rows), group.scores.cpu().numpy(), strict=True)
            for outcome in counted(loaded, group, Scoring(classes)):
                assert outcome.image.keys is not None and outcome.image.counts is not None
                counts[outcome.row] = probability_histogram(outcome.image.keys, outcome.image.counts, classes)
        return scores, counts

    def labels(self, scores: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Winning classes (448, 448) of scores, before any threshold."""
        return self.rows[0].label_map(torch.from_numpy(scores).to(self.backbone.device), (448, 448))


def _settings(name: str) -> Settings:
    method, options, upsampler, debias = RUNS[name]
    changes = {"options": options, "upsampler": upsampler, "debias": debias, "backbone": "tiny", "scale": 50.0}
    geometry = {"resize": ResizeRule(long_side=448), "window": 224, "stride": 112}
    return Settings.neutral(name, "-", method, **changes, **geometry)


def compare(device: str, dtype: str, batch: int = 4) -> list[Check]:
    """Compare everything that is stored with what `device` computes in `dtype`."""
    released, rows, bounds = stored("released"), stored("rows"), BOUNDS[dtype]
    bed = Bed(device, dtype, batch)
    checks = [Check("text", _apart(bed.text.cpu().numpy(), released["text/query_features"]), "max difference", 1e-5)]
    some = {name: values[::TOKEN_STEP] if values.ndim == 2 else values for name, values in bed.tokens()}
    tokens = {name: _apart(values, released[f"tokens/{name}"]) for name, values in some.items()}
    checks.append(_worst("tokens", tokens, "max difference", bounds.tokens))
    features = {}
    for kind in ("jbu_one", "jbu_stack"):
        values = bed.features(kind, released["upsample/tokens"])
        features[kind] = _apart(values[:, ::PIXEL_STEP, ::PIXEL_STEP], released[f"upsample/{kind}/out"])
        corner = _apart(values[:, :6, -6:], released[f"upsample/{kind}/corner"])
        features[kind] = max(features[kind], corner)
    checks.append(_worst("upsampled features", features, "max difference", bounds.features))
    scores, counts = bed.outputs()
    apart = {
        run: _apart(scores[run][:, ::SCORE_STEP, ::SCORE_STEP], rows[f"{run}/scores"]) if run in scores else np.inf
        for run in RUNS
    }
    checks.append(_worst("scores", apart, "max difference", bounds.scores))
    labels = {}
    for run, values in scores.items():
        found = bed.labels(values)[::LABEL_STEP, ::LABEL_STEP]
        labels[run] = 1e6 * float((found != rows[f"{run}/labels"]).mean())
    checks.append(_worst("labels", labels, "pixels per million", max(bounds.labels, _FEW)))
    classes = {run: moved_pixels(counts[run].sum(2), dense(rows, run).sum(2)) for run in RUNS}
    checks.append(_worst("counts, class", classes, "pixels per million", bounds.labels))
    bins = {run: moved_pixels(counts[run], dense(rows, run)) for run in RUNS}
    checks.append(_worst("counts, class and probability", bins, "pixels per million", bounds.bins))
    return checks + (of_towers(device) if dtype == "fp32" else [])


def of_towers(device: str) -> list[Check]:
    """Compare the outputs of towers that are no CLIP, in float32; SAM 3's only where transformers is installed."""
    apart: dict[str, dict[str, float]] = {}
    labels: dict[str, float] = {}
    for name, golden in towers.cases(stored("towers")):
        library = name.partition("_")[0]
        if library == "sam3" and importlib.util.find_spec("transformers") is None:
            continue
        found = towers.compare(name, golden, device)
        shares = {f"{name}/{key}": value / towers.bound(key) for key, value in found.apart.items()}
        apart.setdefault(library, {}).update(shares)
        labels[name] = found.labels
    checks = [_worst(f"scores of {library}", shares, "of its bound", 1) for library, shares in apart.items()]
    return [*checks, _worst("labels of these", labels, "clear pixels", 0)]


def dense(rows: Arrays, run: str) -> Ints:
    """Return the stored histogram (K + 1, K, 100) of a run."""
    return probability_histogram(rows[f"{run}/keys"], rows[f"{run}/counts"], int(rows["classes"]))


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one - other).max())


def _worst(what: str, found: Mapping[str, float], unit: str, bound: float) -> Check:
    name = max(found, key=lambda key: (np.isnan(found[key]), found[key]))
    return Check(what, found[name], unit, bound, name)
