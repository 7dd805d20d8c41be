"""`bench prepare`: a dataset's samples, cut and converted once, into Parquet shards."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from bench.data.cards import Card
from bench.data.contents import ContentCache
from bench.data.prepared import MANIFEST, PreparedManifest, Shard, prepared_folder, read_manifest, recipe
from bench.data.samples import Sample, SampleSet, open_folder, open_samples
from bench.errors import BenchError, writing
from bench.runtime.atomic import TEMPORARY, replacing, write_atomic
from bench.runtime.room import check_room
from bench.settings import IGNORED

_SHARD_BYTES = 256 << 20
_PROBES = 3  # sources that the size is estimated from
_MARGIN = 1.2
_PLAN = "plan.json"  # what the shards of an unfinished folder are made from


def prepare(card: Card, source: Path | None, data_root: Path, layout: str | None = None) -> PreparedManifest:
    """Write a dataset's samples to its prepared folder below the data root; gives the folder's manifest.

    source: folder or archive of the download; None: where `open_samples` finds it. The folder appears
    when it is complete; until then, shards are in "<folder>.part", and the same command continues after them.
    Nothing is done where the folder holds the same samples already.

    Raises DatasetMissing, BenchError for what cannot be read, and for a disk without the room.
    """
    samples = open_folder(card, source, layout) if source else open_samples(card, data_root, layout)
    folder = prepared_folder(card, data_root, layout)
    manifest = PreparedManifest(
        dataset=card.name,
        layout=samples.layout,
        recipe=recipe(card, samples.layout),
        samples=samples.fingerprint(),
        ids=samples.ids,
        absent=samples.absent,
        warnings=samples.warnings,
        contents=tuple(content or "" for content in ContentCache(samples).all()),
        pairs=len(samples.sources),
    )
    present = _present(folder)
    if present and present.model_copy(update={"shards": (), "warnings": manifest.warnings}) == manifest:
        return present
    again = "make room or correct the permissions, then start the same command again: finished shards are kept"
    with writing(folder, again):
        part = _working_folder(folder, manifest)
        manifest = manifest.model_copy(update={"shards": tuple(_write_shards(samples, part))})
        write_atomic(part / "README.md", _readme(card, manifest).encode())
        write_atomic(part / MANIFEST, manifest.encoded())
        _replace_folder(part, folder)
        (folder / _PLAN).unlink()
    return manifest


def _present(folder: Path) -> PreparedManifest | None:
    """Return the manifest of what is there; None as well where it is damaged, as all is written again then."""
    with contextlib.suppress(BenchError):
        return read_manifest(folder)
    return None


def _working_folder(folder: Path, manifest: PreparedManifest) -> Path:
    """Where shards are written; emptied first when they come from other files or another card."""
    part = folder.with_name(f"{folder.name}.part")
    plan = part / _PLAN
    content = manifest.model_dump_json()
    if part.exists() and not (plan.exists() and plan.read_text(encoding="utf-8") == content):
        shutil.rmtree(part)
    part.mkdir(parents=True, exist_ok=True)
    for torn in part.glob(TEMPORARY):
        torn.unlink()
    write_atomic(plan, content.encode())
    return part


def _write_shards(samples: SampleSet, part: Path) -> Iterator[Shard]:
    """Write the shards that are not there yet."""
    size = _bytes_of_a_sample(samples)
    groups = _groups(samples, max(1, _SHARD_BYTES // size))
    files = [part / f"samples-{number:05d}-of-{len(groups):05d}.parquet" for number in range(len(groups))]
    rows = [sum(len(samples.sources[source]) for source in group) for group in groups]
    missing = sum(count for count, file in zip(rows, files, strict=True) if not file.exists())
    check_room(part, int(_MARGIN * size * missing))
    with tqdm(total=len(samples), desc=samples.card.name, unit="image", disable=None) as bar:
        for group, file, count in zip(groups, files, rows, strict=True):
            if file.exists():
                bar.update(count)
            else:
                _write_shard(file, samples, group, bar)
            yield Shard(file=file.name, rows=count, bytes=file.stat().st_size)


def _write_shard(file: Path, samples: SampleSet, sources: Iterable[int], bar: tqdm[Any]) -> None:
    from datasets import Dataset, Features, Image, Value, disable_progress_bars
    from pyarrow.parquet import write_table

    disable_progress_bars()  # ours counts images
    features = Features({"id": Value("string"), "scene": Value("string"), "image": Image(), "label": Image()})
    rows = []
    for source in sources:
        for sample in samples.read_source(source):
            rows.append(_row(samples, sample))
            bar.update()
    with replacing(file) as temporary:
        table = Dataset.from_list(rows, features=features).data.table
        table = table.replace_schema_metadata({**table.schema.metadata, **_metadata(samples.card)})
        write_table(table, temporary, row_group_size=1, write_page_checksum=True)  # a row group for each sample


def _row(samples: SampleSet, sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "scene": samples.scene(sample.index),
        "image": {"bytes": _png(sample.image[..., ::-1]), "path": None},
        "label": {"bytes": _png(sample.label), "path": None},
    }


def _metadata(card: Card) -> dict[str, str]:
    """Return what a shard says of its labels, in the metadata of its schema."""
    return {"classes": json.dumps(card.classes), "ignored label": str(IGNORED), "licence": card.licence}


def _readme(card: Card, manifest: PreparedManifest) -> str:
    """Return the folder's README.md, whose header the Hub and `load_dataset` read."""
    header = {
        "pretty_name": card.title,
        "license": "other",
        "license_name": card.licence,
        "task_categories": ["image-segmentation"],
        "configs": [{"config_name": "default", "data_files": [{"split": "test", "path": "samples-*.parquet"}]}],
    }
    rows = "".join(f"| {value} | {name} |\n" for value, name in enumerate(card.classes))
    sources = "".join(f"- {source}\n" for source in card.sources)
    return (
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n# {card.title}\n\n"
        f"{len(manifest.ids):,} images of {card.split_note}, with labels, written by `bench prepare {card.name}` from "
        f"layout {manifest.layout}.\n\n| label | class |\n| --- | --- |\n{rows}| {IGNORED} | ignored |\n\n"
        f"Licence: {card.licence}\n\n{sources}"
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of grey or blue-green-red pixels."""
    _, packed = cv2.imencode(".png", pixels)
    return packed.tobytes()


def _groups(samples: SampleSet, target: int) -> list[list[int]]:
    """Consecutive sources of about `target` samples together, for one shard each."""
    groups: list[list[int]] = []
    room = 0
    for source, indices in enumerate(samples.sources):
        if room <= 0:
            groups.append([])
            room = target
        groups[-1].append(source)
        room -= len(indices)
    return groups


def _bytes_of_a_sample(samples: SampleSet) -> int:
    """Mean size of a few samples, from sources spread over the dataset; always the same ones."""
    chosen = sorted(set(np.linspace(0, len(samples.sources) - 1, _PROBES).astype(int).tolist()))
    sizes = []
    for source in chosen:
        row = _row(samples, next(samples.read_source(source)))
        sizes.append(len(row["image"]["bytes"]) + len(row["label"]["bytes"]))
    return max(1, sum(sizes) // len(sizes))


def _replace_folder(new: Path, folder: Path) -> None:
    """Put the finished folder in place of an older one."""
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
