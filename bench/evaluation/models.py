"""The models of a run, each loaded once, and the rows that are made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import bench
from bench.config import Config
from bench.errors import BenchError, SharedStateLost, check_known
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Backbone
from bench.models.clip_weights import load_backbone
from bench.models.second import SecondModel
from bench.models.second_kinds import TowerModel, load_second
from bench.models.text import TEMPLATES, Vocabulary, encode, filled
from bench.models.tower import Tower, reader_of
from bench.models.towers.loading import load_tower
from bench.models.upsamplers import Upsampler, find_kind, kind_file, load_upsampler
from bench.models.weights import missing
from bench.paths import weights_dir
from bench.registry import Method, find_method, find_refinement, source_hash
from bench.runtime.checksum import sha256_hash
from bench.runtime.process_state import foreign_code
from bench.runtime.shared_tensors import SharedTensors, SharedWeights, counting_changes
from bench.settings import Settings


@dataclass
class ModelCache:
    """Loads on demand and keeps.

    checkpoint: weights of the protocol's backbone, instead of what benchmark.yaml says
    upsampler_files: the same for upsamplers, by name
    device, dtype: see `bench.models.clip_weights.load_backbone`
    time_limit: see `Row`
    """

    config: Config
    methods: Mapping[str, Method]
    checkpoint: Path | None = None
    upsampler_files: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "fp32"
    time_limit: float | None = None
    _backbones: dict[str, Tower] = field(default_factory=dict, init=False)
    _seconds: dict[str, SecondModel] = field(default_factory=dict, init=False)
    _upsamplers: dict[tuple[str, int], tuple[Upsampler, SharedWeights, str]] = field(default_factory=dict, init=False)
    _looked_at: dict[Hashable, set[Hashable]] = field(default_factory=dict, init=False)

    def backbone(self, name: str) -> Tower:
        """Return the backbone called `name` in benchmark.yaml."""
        if name not in self._backbones:
            given = self.checkpoint if name == self.config.protocol.backbone else None
            spec = self.config.backbones[name]
            if spec.library == "open_clip":
                self._backbones[name] = load_backbone(spec, given, self.device, self.dtype)
            else:
                self._backbones[name] = load_tower(name, spec, given, self.device, self.dtype)
        return self._backbones[name]

    def clip(self, name: str) -> Backbone:
        """Return the backbone called `name` as one of open_clip. BenchError for another library's."""
        backbone = self.backbone(name)
        if not isinstance(backbone, Backbone):
            raise BenchError(f"backbone '{name}' is of library {backbone.library}; one of open_clip is needed")
        return backbone

    def upsampler(self, name: str, dim: int) -> tuple[Upsampler, SharedWeights, str]:
        """Return the upsampler called `name` in benchmark.yaml for `dim` channels, its weights, and their hash."""
        if (name, dim) not in self._upsamplers:
            loaded, fingerprint = self._load_upsampler(name, dim)
            if not kind_file(type(loaded)).is_relative_to(Path(bench.__file__).resolve().parent):
                fingerprint += f", {source_hash(kind_file(type(loaded)))}"  # of a plug-in
            loaded = loaded.requires_grad_(False).to(self.device)
            self._upsamplers[name, dim] = loaded, SharedWeights(loaded), fingerprint
        return self._upsamplers[name, dim]

    def _load_upsampler(self, name: str, dim: int) -> tuple[Upsampler, str]:
        spec = self.config.upsamplers[name]
        given = self.upsampler_files.get(name)
        if find_kind(spec.kind).weightless:
            return load_upsampler(spec.kind, None, dim), spec.kind
        if given is None and spec.seed is not None:
            return load_upsampler(spec.kind, None, dim, spec.seed), f"{spec.kind}, drawn with seed {spec.seed}"
        file = given or weights_dir() / (spec.file or f"{name}.pth")
        if not file.is_file():
            raise BenchError(f"{missing(name, spec, file)}, or give it with --upsampler-checkpoint {name}=FILE")
        return load_upsampler(None if given else spec.kind, file, dim), sha256_hash(file)

    def looked_at(self, settings: Settings) -> set[Hashable]:
        """Return the methods whose first windows were checked on this backbone and geometry, see `Segmenter`."""
        return self._looked_at.setdefault((settings.backbone, settings.window, settings.stride), set())

    def second(self, name: str) -> SecondModel:
        """Return the second model called `name` in `models:` of benchmark.yaml."""
        if name not in self._seconds:
            self._seconds[name] = self._load_second(name)
        return self._seconds[name]

    def _load_second(self, name: str) -> SecondModel:
        spec = self.config.models[name]
        if spec.library == "tower":
            return TowerModel(name, self.clip(spec.name), spec.side)
        return load_second(name, spec, weights_dir() / (spec.file or f"{name}.pth"), self.device, self.dtype)


def check_tower(settings: Settings, method: Method, config: Config) -> None:
    """Raise BenchError for a method on a backbone that it is not made for."""
    spec = config.backbones.get(settings.backbone)
    if spec is not None and spec.library != method.tower:
        fitting = [name for name, other in config.backbones.items() if other.library == method.tower]
        raise BenchError(
            f"row '{settings.row}': {method.name} needs a backbone of library {method.tower}, and "
            f"'{settings.backbone}' is one of {spec.library}; leave it out or give one of: {', '.join(fitting)}"
        )


def _check(settings: Settings, method: Method, config: Config) -> None:
    """Raise BenchError, with row and key, for options and names of models that do not exist."""
    row = f"row '{settings.row}':"
    check_known(settings.backbone, config.backbones, f"{row} unknown backbone '{settings.backbone}'")
    check_known(settings.upsampler, ("none", *config.upsamplers), f"{row} unknown upsampler '{settings.upsampler}'")
    for role, name in settings.models.items():
        check_known(name, config.models, f"{row} models.{role}: unknown second model '{name}'")
    check_tower(settings, method, config)
    if not settings.scale and (not method.makes_scores or settings.aggregate != "max"):
        raise BenchError(f"{row} scale none is for methods that make probabilities, with aggregate max; give a number")
    try:
        method.check(settings.options)
        if settings.refine != "none":
            find_refinement(settings.refine)
    except BenchError as error:
        raise BenchError(f"{row} {error}") from None


def build_row(
    settings: Settings,
    words: Sequence[Sequence[str]],
    models: ModelCache,
    report: Callable[[str], None] = lambda _: None,
) -> Row:
    """Put one row together: method, words, models, and every rule from scores to a label map.

    settings: all that decides the numbers of the row on one dataset.
    words: a list of synonyms per class.
    models: loads what the settings name.
    report: called with each word that has to be encoded, which takes seconds per word on a CPU.

    Raises BenchError for what does not exist or does not fit.
    """
    method = find_method(settings.method, dict(models.methods))
    undeclared = set(settings.models) - set(method.defaults.models)
    if undeclared:
        role = min(undeclared)
        known = ", ".join(method.defaults.models) or "none"
        raise BenchError(f"row '{settings.row}': models.{role}: {method.name} has no such role ({known})")
    _check(settings, method, models.config)
    if method.makes_scores and (settings.upsampler != "none" or settings.debias):
        raise BenchError(
            f"row '{settings.row}': {method.name} makes its own scores, on which upsampler and debias cannot act; "
            "leave them out"
        )
    backbone, vocabulary, built = (
        models.backbone(settings.backbone),
        Vocabulary.of(words),
        method.build(settings.options),
    )
    own_text: Any = getattr(built, "encode_text", None)
    sentences = _sentences(models.config, settings, own_text)
    if own_text:
        with foreign_code(f"row '{settings.row}': encode_text of {method.name} ({method.file.name}) failed"):
            text = own_text(backbone, vocabulary)
        if changed := backbone.weights.changed(closely=True):
            raise SharedStateLost(f"row '{settings.row}': encode_text changed {changed}, which all rows share")
    else:
        text = encode(
            reader_of(backbone), vocabulary, report=report, templates=filled(sentences) if sentences else TEMPLATES
        )
    classes = sorted(set(vocabulary.classes)) if getattr(built, "per_class", False) else vocabulary.classes
    inputs = {"weights": backbone.fingerprint, "vocabulary": vocabulary.fingerprint, "plug-in": method.source_hash}
    if sentences:
        inputs["templates"] = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    inputs |= {f"option {name}": sha256_hash(file) for name, file in method.files(settings.options).items()}
    seconds = {role: models.second(name) for role, name in settings.models.items()}
    inputs |= {f"model {role}": model.fingerprint for role, model in seconds.items()}
    refinement = None if settings.refine == "none" else find_refinement(settings.refine)
    if refinement is not None:
        inputs["refinement"] = source_hash(refinement.file)
    weights = [backbone.weights, *(model.weights for model in seconds.values())]
    upsampler = None
    if settings.upsampler != "none":
        upsampler, of_upsampler, inputs["upsampler"] = models.upsampler(settings.upsampler, backbone.dim)
        weights.append(of_upsampler)
    words_made = SharedTensors()
    with counting_changes():
        text = words_made.keep("the embeddings of the words", text.to(backbone.device, copy=True))
    return Row(
        name=settings.row,
        method=built,
        text=text,
        classes=torch.tensor(classes, device=backbone.device),
        upsampler=upsampler,
        debias=settings.debias,
        debias_on=settings.debias_on,
        scale=settings.scale,
        takes_text=method.takes_text,
        refine=None if refinement is None else refinement.apply,
        refine_original=refinement is not None and refinement.at_original,
        reach=None if refinement is None else refinement.reach,
        models=seconds,
        join=settings.join,
        threshold=settings.threshold,
        background=settings.background,
        inputs=inputs,
        words=words_made,
        weights=weights,
        time_limit=models.time_limit,
    )


def build_segmenters(rows: Sequence[tuple[Settings, Row]], models: ModelCache, batch: int) -> list[Segmenter]:
    """Return a segmenter per backbone and geometry, whose rows share its windows.

    On an accelerator rows that see whole images have another one, so that those of the others share batches.
    """
    together: dict[Hashable, list[tuple[Settings, Row]]] = {}
    for settings, row in rows:
        multiple = row.multiple(settings.stride)
        alone = row.collects and row.text.device.type != "cpu"
        geometry = settings.backbone, settings.resize, settings.window, settings.stride, multiple, alone
        together.setdefault(geometry, []).append((settings, row))
    return [build_segmenter([row for _, row in some], some[0][0], models, batch) for some in together.values()]


def build_segmenter(rows: Sequence[Row], settings: Settings, models: ModelCache, batch: int) -> Segmenter:
    """Rows of one backbone and one geometry, which the settings of any of them say, ready for images."""
    backbone, size = models.backbone(settings.backbone), settings.resize
    segmenter = Segmenter(backbone, rows, settings.window, settings.stride, batch, size)
    segmenter.looked_at = models.looked_at(settings)
    return segmenter


def _sentences(config: Config, settings: Settings, own_text: object) -> tuple[str, ...]:
    """Return the templates of a row, none for ImageNet's 80. BenchError where the method encodes text itself."""
    if settings.templates == "imagenet":
        return ()
    known = ["imagenet", *config.templates]
    check_known(settings.templates, known, f"row '{settings.row}': unknown templates '{settings.templates}'")
    if own_text:
        raise BenchError(f"row '{settings.row}': {settings.method} encodes words in its own way; leave templates out")
    return config.templates[settings.templates]
