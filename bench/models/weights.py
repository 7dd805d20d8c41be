"""Files of weights: where each belongs, whether it is there, how big it is, and where it comes from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import open_clip
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from bench.config import BackboneSpec, Config, SecondSpec, UpsamplerSpec, WeightsSpec
from bench.errors import BenchError
from bench.paths import weights_dir
from bench.runtime.hub import hub_endpoint, on_hub

Kind: TypeAlias = Literal["backbone", "upsampler", "second model"]
Access: TypeAlias = Literal["open", "gated", "by hand", "not released"]


@dataclass(frozen=True)
class WeightsStatus:
    """One file of weights.

    name: in `backbones:`, `upsamplers:` or `models:` of benchmark.yaml
    file: where it is; where it belongs if it is missing, None for the cache of Hugging Face
    bytes: of the file, or as its source states it; None where unknown
    access: open (`bench download weights` fetches it), gated (a licence has to be accepted), by hand, not released
    source: an address, on the hub that is configured
    """

    name: str
    kind: Kind
    there: bool
    file: Path | None
    bytes: int | None
    licence: str | None
    access: Access
    source: str | None
    note: str | None

    @property
    def how(self) -> str:
        """How to get it, in a line."""
        if self.access == "open":
            return f"python -m bench download weights {self.name}"
        if self.access == "not released":
            return self.note or "not released; train it (docs/training.md)"
        get = f"accept the licence ({self.licence}) at" if self.access == "gated" else "get it from"
        more = f" ({self.note})" if self.note else ""
        return f"{get} {self.source} and put the weights into {self.file}{more}"


def look_for_weights(config: Config) -> list[WeightsStatus]:
    """Look for every file of weights that a configuration names; what is drawn by a recipe is left out."""
    kinds: tuple[Mapping[str, WeightsSpec], ...] = (config.backbones, config.upsamplers, config.models)
    every = (_look(name, spec) for specs in kinds for name, spec in specs.items())
    return [status for status in every if status]


def _look(name: str, spec: WeightsSpec) -> WeightsStatus | None:
    """Look for the weights of one model; None for those that have no file."""
    file: Path | None = weights_dir() / (spec.file or f"{name}.pth")
    source, fetched, otherwise, note = spec.url and on_hub(spec.url), bool(spec.url), "by hand", spec.note
    kind: Kind = "second model"
    if isinstance(spec, BackboneSpec):
        if spec.seed is not None:
            return None
        repository = "" if spec.file else _repository(spec)[0]
        kind, file, fetched = "backbone", in_weights_folder(spec) or cached_weights(spec), bool(repository)
        source = f"{hub_endpoint()}/{repository}" if repository else source
        if spec.image_file:
            note = f"those of its image tower into {weights_dir() / spec.image_file}"
    elif isinstance(spec, UpsamplerSpec):
        if spec.file is None:
            return None
        kind, otherwise = "upsampler", "not released"
    elif isinstance(spec, SecondSpec):
        if spec.library == "tower":
            return None
        source = source or on_hub(f"https://huggingface.co/timm/{spec.name}")
    there = file is not None and file.is_file()
    size = file.stat().st_size if file is not None and there else spec.bytes
    access: Any = "gated" if spec.gated else "open" if fetched else otherwise
    return WeightsStatus(name, kind, there, file, size, spec.license, access, source, note)


def missing(name: str, spec: WeightsSpec, file: Path) -> BenchError:
    """Say that the file of a model's weights is not there, and how to get it."""
    known = _look(name, spec)
    assert known is not None  # what is drawn lacks no file
    how = f"get it with `{known.how}`" if known.access == "open" else known.how
    return BenchError(f"{known.kind} {name}: {file} does not exist; {how}")


def in_weights_folder(spec: BackboneSpec) -> Path | None:
    """Return the file that `spec` names, or a download of its pretrained weights, if it is there."""
    if spec.file:
        return weights_dir() / spec.file
    released = weights_dir() / Path(_released(spec).get("url") or "none").name
    return released if released.is_file() else None


def weights_source(spec: BackboneSpec) -> str:
    """Return the address of pretrained weights: of their authors, else on the hub."""
    return _released(spec).get("url") or f"{hub_endpoint()}/{_repository(spec)[0]}"


def _released(spec: BackboneSpec) -> dict[str, str]:
    known: dict[str, str] = open_clip.get_pretrained_cfg(spec.model, spec.pretrained or "")
    return known


def _repository(spec: BackboneSpec) -> tuple[str, tuple[str, ...]]:
    """Return the repository of pretrained weights on the hub, and the names that their file may have there."""
    repository, _, name = _released(spec).get("hf_hub", "").rpartition("/")
    return repository, (name,) if name else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)


def cached_weights(spec: BackboneSpec) -> Path | None:
    """Return the weights in the cache of Hugging Face, if they are there."""
    repository, names = _repository(spec)
    found = (try_to_load_from_cache(repository, name) for name in names if repository)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def fetch_from_hub(spec: BackboneSpec) -> Path:
    """Download pretrained weights into the cache of Hugging Face.

    Raises what the hub's library raises, of the first name of the file that the hub does not merely lack.
    """
    repository, names = _repository(spec)
    if not repository:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(spec.model, spec.pretrained)))
    for name in names[:-1]:
        try:
            return Path(hf_hub_download(repository, name))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # it could not be asked
                raise
    return Path(hf_hub_download(repository, names[-1]))


def size_on_hub(spec: BackboneSpec) -> int | None:
    """Ask the hub for the size of pretrained weights in bytes; None where it does not say."""
    repository, names = _repository(spec)
    for name in names if repository else ():
        with contextlib.suppress(HfHubHTTPError, OSError, ValueError):
            return get_hf_file_metadata(hf_hub_url(repository, name)).size
    return None
