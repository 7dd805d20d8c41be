"""The models of a run: each backbone and each upsampler is loaded once, with the hash that identifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import bench
from bench.config import Config
from bench.errors import BenchError, did_you_mean
from bench.inference.variant import Variant
from bench.models.backbone import Backbone
from bench.models.checkpoints import file_fingerprint
from bench.models.clip_weights import load_backbone
from bench.models.second import SecondModel
from bench.models.second_kinds import TowerModel, load_second
from bench.models.text import TEMPLATES, Vocabulary, encode, filled
from bench.models.upsamplers import Upsampler, find_kind, kind_file, load_upsampler
from bench.paths import weights_dir
from bench.registry import Method, find_method, find_refinement, source_hash
from bench.settings import Settings


@dataclass
class ModelCache:
    """Loads on demand and keeps.

    checkpoint: weights of the protocol's backbone, instead of what benchmark.yaml says. upsampler_files: the
    same for upsamplers, by name. device, dtype: see `bench.models.clip_weights.load_backbone`.
    """

    config: Config
    methods: Mapping[str, Method]
    checkpoint: Path | None = None
    upsampler_files: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "fp32"
    _backbones: dict[str, Backbone] = field(default_factory=dict, init=False)
    _seconds: dict[str, SecondModel] = field(default_factory=dict, init=False)
    _upsamplers: dict[tuple[str, int], tuple[Upsampler, str]] = field(default_factory=dict, init=False)

    def backbone(self, name: str) -> Backbone:
        """The backbone called `name` in benchmark.yaml."""
        if name not in self._backbones:
            given = self.checkpoint if name == self.config.protocol.backbone else None
            self._backbones[name] = load_backbone(self.config.backbones[name], given, self.device, self.dtype)
        return self._backbones[name]

    def upsampler(self, name: str, dim: int) -> tuple[Upsampler, str]:
        """The upsampler called `name` in benchmark.yaml for features of `dim` channels, and the hash of its file."""
        if name not in self.config.upsamplers:
            raise BenchError(f"unknown upsampler '{name}'; {did_you_mean(name, self.config.upsamplers)}")
        if (name, dim) not in self._upsamplers:
            loaded, fingerprint = self._load_upsampler(name, dim)
            if not kind_file(type(loaded)).is_relative_to(Path(bench.__file__).resolve().parent):
                fingerprint += f", {source_hash(kind_file(type(loaded)))}"  # of a plug-in
            self._upsamplers[name, dim] = loaded.requires_grad_(False).to(self.device), fingerprint
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
            source = f"get it with `python -m bench download weights {name}`" if spec.url else None
            raise BenchError(
                f"upsampler {name}: {file} does not exist; {source or spec.note or 'train it (docs/training.md)'}, "
                f"or give it with --upsampler-checkpoint {name}=FILE"
            )
        return load_upsampler(None if given else spec.kind, file, dim), file_fingerprint(file)

    def second(self, name: str) -> SecondModel:
        """The second model called `name` in `models:` of benchmark.yaml."""
        if name not in self.config.models:
            raise BenchError(f"unknown second model '{name}'; {did_you_mean(name, self.config.models)}")
        if name not in self._seconds:
            spec = self.config.models[name]
            if spec.library == "tower":
                self._seconds[name] = TowerModel(name, self.backbone(spec.name), spec.side)
            else:
                file = weights_dir() / (spec.file or f"{name}.pth")
                self._seconds[name] = load_second(name, spec, file, self.device, self.dtype)
        return self._seconds[name]

    def variant(
        self,
        settings: Settings,
        words: Sequence[Sequence[str]],
        report: Callable[[str], None] = lambda _: None,
    ) -> tuple[Variant, dict[str, str]]:
        """What the segmenter needs of one cell, and the hashes of all that went into it (weights, text,
        plug-in).

        report: called with each word that has to be encoded, which takes seconds per word on a CPU.
        """
        method = find_method(settings.method, dict(self.methods))
        undeclared = set(settings.models) - set(method.defaults.models)
        if undeclared:
            role = min(undeclared)
            known = ", ".join(method.defaults.models) or "none"
            raise BenchError(f"row '{settings.row}': models.{role}: {method.name} has no such role ({known})")
        if method.makes_scores and (settings.upsampler != "none" or settings.debias):
            raise BenchError(
                f"row '{settings.row}': {method.name} makes its own scores, on which upsampler and debias cannot act; "
                "leave them out"
            )
        backbone = self.backbone(settings.backbone)
        vocabulary = Vocabulary.of(words)
        built = method.build(settings.options)
        own_text: Any = getattr(built, "encode_text", None)
        sentences = self._sentences(settings, own_text)
        text = (
            own_text(backbone, vocabulary)
            if own_text
            else encode(backbone, vocabulary, report=report, templates=filled(sentences) if sentences else TEMPLATES)
        )
        hashes = {
            "weights": backbone.fingerprint,
            "vocabulary": vocabulary.fingerprint,
            "plug-in": method.source_hash,
        }
        if sentences:
            hashes["templates"] = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
        hashes |= {f"option {name}": file_fingerprint(file) for name, file in method.files(settings.options).items()}
        seconds = {role: self.second(name) for role, name in settings.models.items()}
        hashes |= {f"model {role}": model.fingerprint for role, model in seconds.items()}
        refine, at_original = None, False
        if settings.refine != "none":
            found = find_refinement(settings.refine)
            refine, at_original, hashes["refinement"] = found.apply, found.at_original, source_hash(found.file)
        upsampler = None
        if settings.upsampler != "none":
            upsampler, hashes["upsampler"] = self.upsampler(settings.upsampler, backbone.dim)
        variant = Variant(
            settings.row,
            built,
            text.to(backbone.device),
            torch.tensor(vocabulary.classes, device=backbone.device),
            upsampler,
            settings.debias,
            settings.debias_on,
            settings.scale,
            method.takes_text,
            refine,
            at_original,
            seconds,
            settings.join,
        )
        return variant, hashes

    def _sentences(self, settings: Settings, own_text: object) -> tuple[str, ...]:
        """The templates of a row; empty for ImageNet's 80. BenchError where the method has a text side of its own."""
        if settings.templates == "imagenet":
            return ()
        if settings.templates not in self.config.templates:
            hint = did_you_mean(settings.templates, ["imagenet", *self.config.templates])
            raise BenchError(f"row '{settings.row}': unknown templates '{settings.templates}'; {hint}")
        if own_text:
            raise BenchError(
                f"row '{settings.row}': {settings.method} encodes words in its own way; leave templates out"
            )
        return self.config.templates[settings.templates]
