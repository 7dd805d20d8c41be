"""The models of a run: each backbone and each upsampler is loaded once, with the hash that identifies it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.backbone import Backbone
from bench.checkpoints import file_fingerprint
from bench.config import BackboneSpec, Config, Settings, UpsamplerSpec
from bench.errors import BenchError, did_you_mean
from bench.methods import Method, find_method
from bench.paths import weights_dir
from bench.segmenter import Query
from bench.upsamplers import Upsampler, load_upsampler
from bench.vocabulary import Vocabulary, encode
from bench.weights import demo_backbone, load_backbone

DEMO = "demo"  # the embedded backbone, and the upsampler trained for it


@dataclass
class Zoo:
    """Loads on demand and keeps.

    checkpoint: weights of the protocol's backbone, instead of what benchmark.yaml says. upsampler_files: the
    same for upsamplers, by name. device, dtype: see `bench.weights.load_backbone`.
    """

    config: Config
    methods: Mapping[str, Method]
    checkpoint: Path | None = None
    upsampler_files: Mapping[str, Path] = field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "fp32"
    _backbones: dict[str, Backbone] = field(default_factory=dict, init=False)
    _upsamplers: dict[tuple[Path, int], tuple[Upsampler, str]] = field(default_factory=dict, init=False)

    def backbone(self, name: str) -> Backbone:
        """The backbone called `name` in benchmark.yaml."""
        if name not in self._backbones:
            given = self.checkpoint if name == self.config.protocol.backbone else None
            if name == DEMO:
                self._backbones[name] = demo_backbone(self.device, self.dtype)
            else:
                self._backbones[name] = load_backbone(self.config.backbones[name], given, self.device, self.dtype)
        return self._backbones[name]

    def upsampler(self, name: str, dim: int) -> tuple[Upsampler, str]:
        """The upsampler called `name` in benchmark.yaml for features of `dim` channels, and the hash of its file."""
        spec = self.config.upsamplers[name]
        file = self.upsampler_files.get(name) or weights_dir() / spec.file
        if (file, dim) not in self._upsamplers:
            if not file.is_file():
                source = (
                    f"get it with `python -m bench download weights {name}`"
                    if spec.url
                    else "train it (docs/training.md)"
                )
                raise BenchError(
                    f"upsampler {name}: {file} does not exist; {source}, "
                    f"or give it with --upsampler-checkpoint {name}=FILE"
                )
            loaded = load_upsampler(None if name in self.upsampler_files else spec.kind, file, dim)
            self._upsamplers[file, dim] = loaded.to(self.device), file_fingerprint(file)
        return self._upsamplers[file, dim]

    def query(
        self,
        settings: Settings,
        words: Sequence[Sequence[str]],
        report: Callable[[str], None] = lambda _: None,
    ) -> tuple[Query, dict[str, str]]:
        """What the segmenter needs of one cell, and the hashes of all that went into it (weights, text,
        plug-in).

        report: told each word that has to be encoded, which takes seconds a word on a CPU.
        """
        method = find_method(settings.method, dict(self.methods))
        backbone = self.backbone(settings.backbone)
        vocabulary = Vocabulary.of(words)
        built = method.build(settings.options)
        own_text: Any = getattr(built, "encode_text", None)
        text = own_text(backbone, vocabulary) if own_text else encode(backbone, vocabulary, report=report)
        hashes = {
            "weights": backbone.fingerprint,
            "vocabulary": vocabulary.fingerprint,
            "plug-in": method.source_hash,
        }
        if self.dtype != "fp32":
            hashes["dtype"] = self.dtype
        upsampler = None
        if settings.upsampler != "none":
            upsampler, hashes["upsampler"] = self.upsampler(settings.upsampler, backbone.dim)
        query = Query(
            settings.row,
            built,
            text.to(backbone.device),
            torch.tensor(vocabulary.classes, device=backbone.device),
            upsampler,
            settings.debias,
            settings.debias_on,
            settings.scale,
        )
        return query, hashes


def with_backbone(config: Config, flag: str | None) -> Config:
    """The configuration with `--backbone`: an entry of `backbones:`, an open_clip ``name[:tag]``, a model-config JSON,
    or ``demo``, the embedded test bed.
    """
    if flag is None:
        return config
    if flag == DEMO:
        return demo_config(config)
    name = flag
    if flag.endswith(".json"):  # results are identified by the weights; where the file lies must not matter
        name = Path(flag).stem
        if name in config.backbones:
            raise BenchError(f"--backbone {flag}: '{name}' is a backbone of benchmark.yaml; give the file another name")
        config = _with(config, name, BackboneSpec(model=flag))
    elif flag not in config.backbones:
        model, _, tag = flag.partition(":")
        config = _with(config, name, BackboneSpec(model=model, pretrained=tag or None))
    protocol = config.protocol.model_copy(update={"backbone": name})
    return config.model_copy(update={"protocol": protocol})


def _with(config: Config, name: str, spec: BackboneSpec) -> Config:
    return config.model_copy(update={"backbones": {**config.backbones, name: spec}})


def upsampler_files(flags: Sequence[str], config: Config, default: str = "simfeatup") -> dict[str, Path]:
    """Name -> file of ``--upsampler-checkpoint [NAME=]FILE`` flags; without a name it stands for `default`."""
    files = {}
    for flag in flags:
        name, equals, file = flag.rpartition("=")
        name = name if equals else default
        if name not in config.upsamplers:
            raise BenchError(
                f"--upsampler-checkpoint {flag}: unknown upsampler '{name}'; {did_you_mean(name, config.upsamplers)}"
            )
        files[name] = Path(file).expanduser()
    return files


def demo_config(config: Config) -> Config:
    """The configuration of `run --demo`: every row on the embedded backbone, every upsampler as trained for it."""
    from bench.demo.backbone import CONFIG_FILE, WEIGHTS

    backbones = {DEMO: BackboneSpec(model=str(CONFIG_FILE))}
    upsamplers = {}
    for name, spec in config.upsamplers.items():
        own = WEIGHTS / f"{name}.safetensors"  # Table 3's have none, as there is but one backbone
        upsamplers[name] = UpsamplerSpec(
            kind=spec.kind, file=str(own if own.exists() else WEIGHTS / "simfeatup.safetensors")
        )
    protocol = config.protocol.model_copy(update={"backbone": DEMO})
    rows = {name: row.model_copy(update={"backbone": None}) for name, row in config.rows.items()}
    changes = {"backbones": backbones, "upsamplers": upsamplers, "protocol": protocol, "rows": rows}
    return config.model_copy(update=changes)
