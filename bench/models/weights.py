"""Files of weights: where each belongs, whether it is there, how big it is, and where it comes from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import open_clip
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from bench.config import BackboneSpec, Config, WeightsSpec
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
        accept = "accept the licence and " if self.access == "gated" else ""
        return f"{accept}get it from {self.source} into {self.file}"


def look_for_weights(config: Config) -> list[WeightsStatus]:
    """Look for every file of weights that a configuration names; what is drawn by a recipe is left out."""
    return [*_backbones(config), *_upsamplers(config), *_seconds(config)]


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


def _backbones(config: Config) -> Iterator[WeightsStatus]:
    for name, spec in config.backbones.items():
        if spec.seed is None:
            repository = "" if spec.file else _repository(spec)[0]
            access: Access = "gated" if spec.gated else "open" if repository else "by hand"
            source = f"{hub_endpoint()}/{repository}" if repository else spec.url and on_hub(spec.url)
            yield _status(name, "backbone", spec, in_weights_folder(spec) or cached_weights(spec), access, source)


def _upsamplers(config: Config) -> Iterator[WeightsStatus]:
    for name, spec in config.upsamplers.items():
        if spec.file is not None:
            access: Access = "gated" if spec.gated else "open" if spec.url else "not released"
            yield _status(name, "upsampler", spec, weights_dir() / spec.file, access, spec.url and on_hub(spec.url))


def _seconds(config: Config) -> Iterator[WeightsStatus]:
    for name, spec in config.models.items():
        if spec.library != "tower":
            access: Access = "gated" if spec.gated else "open" if spec.url else "by hand"
            source = on_hub(spec.url or f"https://huggingface.co/timm/{spec.name}")
            yield _status(name, "second model", spec, weights_dir() / (spec.file or f"{name}.pth"), access, source)


def _status(
    name: str, kind: Kind, spec: WeightsSpec, file: Path | None, access: Access, source: str | None
) -> WeightsStatus:
    there = file is not None and file.is_file()
    size = file.stat().st_size if file is not None and there else spec.bytes
    return WeightsStatus(name, kind, there, file, size, spec.license, access, source, spec.note)
