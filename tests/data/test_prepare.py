from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets as hugging_face
import numpy as np
import pytest
import yaml
from data_helpers import pack, scene

from bench.cli import main
from bench.data import prepare as module
from bench.data.cards import Card, load_card
from bench.data.layouts import DatasetMissing
from bench.data.loader import load
from bench.data.prepare import prepare
from bench.data.prepared import PreparedSamples, find_samples, prepared_folder, recipe
from bench.data.samples import FileSamples, SampleSet, open_samples
from bench.data.schema import Tiling
from bench.demo.writers import write_dataset
from bench.errors import BenchError
from bench.settings import ResizeRule

SMALL = ResizeRule(long_side=32)


def small_potsdam() -> Card:
    return load_card("potsdam").model_copy(update={"tiling": Tiling(width=64, height=48)})


def write(card: Card, root: Path, scenes: int = 3) -> Path:
    return write_dataset(card, root, [scene(card, 96, 128, seed) for seed in range(scenes)])


def assert_same(one: SampleSet, other: SampleSet) -> None:
    assert one.ids == other.ids and one.fingerprint() == other.fingerprint() and one.layout == other.layout
    assert (one.absent, one.warnings) == (other.absent, other.warnings)
    assert [one.scene(n) for n in range(len(one))] == [other.scene(n) for n in range(len(other))]
    pairs = zip(load(one, range(len(one)), [SMALL], 0), load(other, range(len(other)), [SMALL], 0), strict=True)
    for first, second in pairs:
        assert first.error is None and second.error is None and first.id == second.id
        assert np.array_equal(first.label, second.label) and second.label.dtype == np.uint8
        assert np.array_equal(first.images[SMALL], second.images[SMALL])


def samples_of(samples: SampleSet) -> Iterator[Any]:
    for source in range(len(samples.sources)):
        yield from samples.read_source(source)


@pytest.fixture
def _tiny_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD_BYTES", 1)


@pytest.mark.parametrize("name", ["loveda", "whu_aerial", "udd5", "isaid"])
def test_shards_hold_to_the_bit_what_the_files_hold(name: str, tmp_path: Path) -> None:
    card = load_card(name)
    write(card, tmp_path)
    files = open_samples(card, tmp_path)
    prepare(card, None, tmp_path)
    shards = find_samples(card, tmp_path)
    assert isinstance(shards, PreparedSamples)
    assert_same(files, shards)
    for one, other in zip(samples_of(files), samples_of(shards), strict=True):
        assert (one.index, one.id) == (other.index, other.id)
        assert np.array_equal(one.image, other.image) and np.array_equal(one.label, other.label)


@pytest.mark.usefixtures("_tiny_shards")
def test_scenes_are_cut_once_into_samples_that_can_be_read_alone(tmp_path: Path) -> None:
    card = small_potsdam()
    write(card, tmp_path)
    files = open_samples(card, tmp_path)
    manifest = prepare(card, None, tmp_path)
    shards = find_samples(card, tmp_path)
    assert len(manifest.shards) == 3 and [shard.rows for shard in manifest.shards] == [4, 4, 4]
    assert [len(source) for source in files.sources] == [4, 4, 4]
    assert [len(source) for source in shards.sources] == [1] * 12
    assert_same(files, shards)
    assert np.array_equal(shards.read(7).label, files.read(7).label)
    assert np.array_equal(shards.read_label(7), files.read(7).label)
    workers = list(load(pickle.loads(pickle.dumps(shards)), [1, 5, 11], [SMALL], 2))
    assert [item.id for item in workers] == [shards.ids[n] for n in (1, 5, 11)]


def test_hugging_face_datasets_opens_the_shards(tmp_path: Path) -> None:
    card = small_potsdam()
    write(card, tmp_path)
    prepare(card, None, tmp_path)
    files = str(prepared_folder(card, tmp_path) / "*.parquet")
    rows = hugging_face.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    first = open_samples(card, tmp_path).read(0)
    assert rows.num_rows == 12 and rows[0]["id"] == first.id and rows[0]["scene"] == "2_13"
    assert np.array_equal(np.asarray(rows[0]["image"]), first.image)
    assert np.array_equal(np.asarray(rows[0]["label"]), first.label)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_source_may_lie_elsewhere_and_be_packed(kind: str, tmp_path: Path) -> None:
    card = load_card("loveda")
    source = write(card, tmp_path / "downloads")
    files = open_samples(card, tmp_path / "downloads")
    expected = list(samples_of(files))
    if kind == "zip":
        pack(source, tmp_path / "Val.zip")
        source = tmp_path / "Val.zip"
    prepare(card, source, tmp_path / "data")
    shutil.rmtree(tmp_path / "downloads")
    found = list(samples_of(find_samples(card, tmp_path / "data")))
    assert [sample.id for sample in found] == [sample.id for sample in expected]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(found, expected, strict=True))


@pytest.mark.usefixtures("_tiny_shards")
def test_an_interrupted_run_goes_on_after_its_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = small_potsdam()
    write(card, tmp_path)
    folder = prepared_folder(card, tmp_path)
    written: list[str] = []
    original = module._write_shard

    def interrupted(file: Path, *args: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        original(file, *args)
        written.append(file.name)

    monkeypatch.setattr(module, "_write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(card, None, tmp_path)
    assert not folder.exists() and isinstance(find_samples(card, tmp_path), FileSamples)
    before = {file.name: file.stat().st_mtime_ns for file in folder.with_name("potsdam.part").glob("*.parquet")}
    assert list(before) and set(before) == set(written)
    monkeypatch.setattr(module, "_write_shard", original)
    prepare(card, None, tmp_path)
    assert before.items() <= {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}.items()
    assert sorted(file.name for file in folder.parent.iterdir()) == ["potsdam"]
    assert sorted(file.suffix for file in folder.iterdir()) == [".json", ".md", ".parquet", ".parquet", ".parquet"]
    assert_same(open_samples(card, tmp_path), find_samples(card, tmp_path))


@pytest.mark.usefixtures("_tiny_shards")
def test_shards_of_other_files_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = small_potsdam()
    write(card, tmp_path)
    original = module._replace_folder
    monkeypatch.setattr(module, "_replace_folder", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(card, None, tmp_path)
    monkeypatch.setattr(module, "_replace_folder", original)
    shutil.rmtree(tmp_path / "potsdam")
    write_dataset(card, tmp_path, [scene(card, 96, 128, seed) for seed in (7, 8)])
    assert len(prepare(card, None, tmp_path).ids) == 8
    assert_same(open_samples(card, tmp_path), find_samples(card, tmp_path))


def test_what_is_prepared_already_is_left_alone(tmp_path: Path) -> None:
    card = load_card("loveda")
    write(card, tmp_path)
    prepare(card, None, tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in prepared_folder(card, tmp_path).iterdir()}
    prepare(card, None, tmp_path)
    assert before == {file.name: file.stat().st_mtime_ns for file in prepared_folder(card, tmp_path).iterdir()}


def test_a_changed_source_is_prepared_anew(tmp_path: Path) -> None:
    card = load_card("loveda")
    write(card, tmp_path, 2)
    prepare(card, None, tmp_path)
    write(card, tmp_path, 3)
    with pytest.warns(UserWarning, match="prepared from other files than there are now"):
        assert len(find_samples(card, tmp_path)) == 3
    prepare(card, None, tmp_path)
    assert len(find_samples(card, tmp_path)) == 3
    assert sorted(file.name for file in (tmp_path / "prepared").iterdir()) == ["loveda"]


def test_a_card_that_cuts_otherwise_makes_shards_stale(tmp_path: Path) -> None:
    card = small_potsdam()
    folder = write(card, tmp_path)
    prepare(card, None, tmp_path)
    other = card.model_copy(update={"tiling": Tiling(width=32, height=32)})
    with pytest.warns(UserWarning, match="another version of the card, the original files are used"):
        assert isinstance(find_samples(other, tmp_path), FileSamples)
    shutil.rmtree(folder)
    with pytest.raises(BenchError, match="original files are gone; run `bench prepare potsdam` again"):
        find_samples(other, tmp_path)


def test_the_recipe_is_what_decides_on_the_arrays() -> None:
    card = load_card("wbs_si")
    same = card.model_copy(update={"title": "Water", "threshold": 0.1, "notes": ("new",)})
    assert recipe(same, "original") == recipe(card, "original")
    assert recipe(card, "original") != recipe(card, "reference-jpeg")
    assert recipe(card.model_copy(update={"id": "w{n}"}), "original") != recipe(card, "original")


def test_a_layout_on_request_has_shards_of_its_own(tmp_path: Path) -> None:
    card = load_card("wbs_si")
    write(card, tmp_path)
    prepare(card, None, tmp_path, "reference-jpeg")
    assert find_samples(card, tmp_path).layout == "original"
    assert isinstance(find_samples(card, tmp_path), FileSamples)
    on_request = find_samples(card, tmp_path, "reference-jpeg")
    assert isinstance(on_request, PreparedSamples)
    assert_same(open_samples(card, tmp_path, "reference-jpeg"), on_request)


def test_without_room_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card("loveda")
    write(card, tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(BenchError, match=r"about .* MB are needed and 0.0 MB are free; make room or"):
        prepare(card, None, tmp_path)
    assert not prepared_folder(card, tmp_path).exists()


def test_an_unreadable_file_stops_it_by_name(tmp_path: Path) -> None:
    card = load_card("loveda")
    folder = write(card, tmp_path)
    broken = sorted(folder.rglob("masks_png/*.png"))[1]
    broken.write_bytes(b"nothing")
    with pytest.raises(BenchError, match=broken.name):
        prepare(card, None, tmp_path)
    assert not prepared_folder(card, tmp_path).exists()


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    card = load_card("loveda")
    write(card, tmp_path)
    folder = prepared_folder(card, tmp_path)
    shard = folder / prepare(card, None, tmp_path).shards[0].file
    samples = find_samples(card, tmp_path)
    whole = shard.read_bytes()
    in_a_name = whole.index(samples.ids[0].encode())
    one_bit = whole[:in_a_name] + bytes([whole[in_a_name] ^ 1]) + whole[in_a_name + 1 :]
    for damaged in (b"x" * len(whole), one_bit):
        shard.write_bytes(damaged)
        with pytest.raises(BenchError, match=r"cannot be read .* run `bench prepare` again"):
            samples.read(0)
    shard.write_bytes(whole[:-1])
    with pytest.raises(BenchError, match="not as it was written"):
        find_samples(card, tmp_path)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(BenchError, match=r"manifest.json: damaged; delete"):
        find_samples(card, tmp_path)
    prepare(card, None, tmp_path)
    assert_same(open_samples(card, tmp_path), find_samples(card, tmp_path))


def test_shards_say_what_their_labels_mean(tmp_path: Path) -> None:
    from pyarrow.parquet import read_schema

    card = load_card("loveda")
    write(card, tmp_path)
    folder = prepared_folder(card, tmp_path)
    metadata = read_schema(folder / prepare(card, None, tmp_path).shards[0].file).metadata
    assert json.loads(metadata[b"classes"]) == [*card.classes]
    assert (metadata[b"ignored label"], metadata[b"licence"].decode()) == (b"255", card.licence)
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header)["license_name"] == card.licence
    assert "| 6 | agricultural |" in text and "| 255 | ignored |" in text
    (other,) = hugging_face.load_dataset(str(folder), cache_dir=str(tmp_path / "cache")).values()
    assert [row["id"] for row in other] == [*open_samples(card, tmp_path).ids]


def test_nothing_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="loveda"):
        prepare(load_card("loveda"), tmp_path / "nowhere", tmp_path)
    with pytest.raises(DatasetMissing, match="loveda"):
        find_samples(load_card("loveda"), tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = load_card("loveda")
    source = write(card, tmp_path / "downloads")
    root = tmp_path / "data"
    assert main(["prepare", "loveda", "--source", str(source), "--data-root", str(root)]) == 1
    told = capsys.readouterr().out
    assert f"{root / 'prepared' / 'loveda'}: 3 images in 1 shards" in told
    assert "incomplete: 3 of 1,669 images" in told
    assert main(["prepare", "lovda", "--data-root", str(root)]) == 2
    assert "did you mean loveda" in capsys.readouterr().err
