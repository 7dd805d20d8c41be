"""Downloads for `bench download`: datasets with a public address, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from bench.config import BackboneSpec, Config, SecondSpec, UpsamplerSpec
from bench.data.cards import Card
from bench.data.fetch import fetch, linked_images, md5_hash
from bench.data.inventory import look
from bench.data.layouts import dataset_folders
from bench.data.schema import Download
from bench.errors import check_known
from bench.paths import weights_dir
from bench.runtime.checksum import sha256_hash


def download_dataset(card: Card, data_root: Path, say: Callable[[str], None]) -> bool:
    """Fetch the needed files of a dataset that have a public address, and say how to get the others.

    Files go below the dataset's folder under `data_root`; nothing is fetched where the dataset is found there
    already. True when nothing is left to be done by hand. Raises BenchError as `fetch` does.
    """
    entry = look(card, data_root)
    if entry.state == "found":
        say(f"{card.name}: is in {entry.folder}; `bench datasets check {card.name}` says whether it is right")
        return True
    folder = next(iter(dataset_folders(card, data_root)), data_root / card.folders[0])
    needed = [item for item in card.downloads if item.needed]
    if any(item.url for item in needed):
        say(f"{card.title}, licence: {card.licence}")
    for item in needed:
        if item.url:
            _fetch_item(item, item.url, folder, say)
    by_hand = [item for item in needed if not item.url and not (folder / item.file).exists()]
    complete = bool(needed) and not by_hand
    for line in () if complete else _steps(card, folder, by_hand):
        say(line)
    return complete


def download_weights(
    config: Config,
    names: Sequence[str],
    say: Callable[[str], None],
    fetch_backbone: Callable[[BackboneSpec], Path],
) -> bool:
    """Fetch checkpoints that benchmark.yaml names into the weights folder; no names: all released upsamplers.

    names: of `upsamplers:`, `models:` or `backbones:`. fetch_backbone: fetches pretrained weights that open_clip knows,
    and says where they are. True when none of them has to be got by hand. Raises BenchError for an unknown name, and as
    `fetch` does.
    """
    known = [*config.upsamplers, *config.models, *config.backbones]
    for name in names:
        check_known(name, known, f"unknown weights '{name}'")
    released = [name for name, spec in config.upsamplers.items() if spec.url]
    there = [_fetch_weights(config, name, say, fetch_backbone) for name in names or released]
    return all(there)


def _fetch_weights(
    config: Config, name: str, say: Callable[[str], None], fetch_backbone: Callable[[BackboneSpec], Path]
) -> bool:
    """One checkpoint; False where it has to be got by hand, which is said then."""
    spec = config.upsamplers.get(name) or config.models.get(name) or config.backbones[name]
    if spec.file is None:
        say(f"{fetch_backbone(spec)}: is there" if isinstance(spec, BackboneSpec) else f"{name}: has no weights")
        return True
    target = weights_dir() / spec.file
    if isinstance(spec, UpsamplerSpec | SecondSpec) and spec.url and not spec.gated:
        git_blob = spec.git_blob if isinstance(spec, UpsamplerSpec) else None
        if spec.license:
            say(f"{name}, licence: {spec.license}")
        new = fetch(spec.url, target, git_blob=git_blob, sha256=spec.sha256)
        say(f"{target}: {_state(new, git_blob or spec.sha256, target, sha256_hash)}")
        return True
    if target.exists():
        say(f"{target}: was there already")
        return True
    if spec.gated:
        image = spec.image_file if isinstance(spec, BackboneSpec) else None
        also = f", those of its image tower into {weights_dir() / image}" if image else ""
        say(f"{name}: accept the licence ({spec.license}) at {spec.url}, and put the weights into {target}{also}")
        return False
    converted = f"; {spec.note}" if isinstance(spec, BackboneSpec) and spec.library == "radio" else ""
    origin = f"get it from {spec.url}{converted}" if spec.url else spec.note
    origin = origin or "it is not released, train it (docs/training.md)"
    say(f"{name}: {origin}, and put it into {target}")
    return False


def _fetch_item(item: Download, url: str, folder: Path, say: Callable[[str], None]) -> None:
    target = folder / item.file
    if item.index:
        links = linked_images(url)
        new = [fetch(link, target / PurePosixPath(unquote(urlsplit(link).path)).name) for link in links]
        say(f"{target}: {len(links)} files, {sum(new)} of them new; no checksums are known")
    else:
        say(f"{target}: {_state(fetch(url, target, md5=item.md5), item.md5, target, md5_hash)}")


def _state(new: bool, expected: str | None, file: Path, digest: Callable[[Path], str]) -> str:
    came = "downloaded" if new else "was there already"
    if expected:
        return f"{came}, checksum right"
    return f"{came}, no checksum is known; {digest.__name__.partition('_')[0]} {digest(file)}"


def _steps(card: Card, folder: Path, missing: Sequence[Download]) -> Iterator[str]:
    """List the steps that the user has to do by hand, one per line."""
    yield f"{card.title} ({card.name}) has to be got by hand. Access: {card.access}. Licence: {card.licence}"
    yield f"  {card.obtain}"
    yield from (f"  see {source}" for source in card.sources)
    yield f"  the folder is {folder}"
    for item in missing:
        yield f"    {item.file}" + (f"  (md5 {item.md5})" if item.md5 else "")
    yield f"  then: python -m bench datasets check {card.name}"
