"""Every dataset in every layout, and the real samples."""

from __future__ import annotations

import io
import os
import pickle
import shutil

import numpy as np
import pytest
from data_helpers import everything, pack, scenes, small

from bench.data.cards import card_names, load_card
from bench.data.label_faults import suspicious
from bench.data.samples import open_folder, open_samples
from bench.demo.writers import write_dataset
from bench.errors import BenchError


def written_layouts() -> list[tuple[str, str]]:
    cards = [load_card(name) for name in card_names()]
    return [(card.name, layout) for card in cards for layout in card.layouts if not layout.startswith("official")]


@pytest.fixture
def loveda(tmp_path):
    """Card, data root and folder of a generated LoveDA."""
    card = load_card("loveda")
    return card, tmp_path, write_dataset(card, tmp_path, scenes(card))


@pytest.mark.parametrize(("name", "layout"), written_layouts())
def test_what_was_written_is_read(name, layout, tmp_path):
    card = small(name)
    made = scenes(card)
    write_dataset(card, tmp_path, made, layout)
    samples = open_samples(card, tmp_path, layout)
    assert samples.layout == layout
    assert suspicious(samples) == ()
    read = everything(samples)
    assert [sample.index for sample in read] == list(range(len(samples)))
    assert tuple(sample.id for sample in read) == samples.ids
    assert all(sample.image.shape == (*sample.label.shape, 3) for sample in read)
    if card.tiling is None and layout != "reference-jpeg" and (name, layout) != ("wbs_si", "prepared"):
        for _, label in made:
            label[np.isin(label, [card.classes.index(one) for one in card.uncounted])] = 255
        assert {sample.label.tobytes() for sample in read} == {label.tobytes() for _, label in made}


@pytest.mark.parametrize("name", [name for name in card_names() if "prepared" in load_card(name).layouts])
def test_original_and_prepared_layout_give_the_same_arrays(name, tmp_path):
    card = small(name)
    first, second = next(iter(card.layouts)), "prepared"
    if name == "wbs_si":
        first = "reference-jpeg"
    made = scenes(card)
    write_dataset(card, tmp_path / "a", made, first)
    write_dataset(card, tmp_path / "b", made, second)
    originals, prepared = (
        open_samples(card, tmp_path / "a", first),
        open_samples(card, tmp_path / "b", second),
    )
    assert originals.ids == prepared.ids
    assert [originals.scene(i) for i in range(len(originals))] == [prepared.scene(i) for i in range(len(prepared))]
    for one, other in zip(everything(originals), everything(prepared), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)


@pytest.mark.parametrize("name", card_names())
def test_archives_are_read_like_folders(name, tmp_path):
    card = small(name)
    layout = next(iter(card.layouts))
    folder = write_dataset(card, tmp_path, scenes(card), layout)
    unpacked = everything(open_samples(card, tmp_path))
    pack(folder, folder / "download.zip")
    for samples in (open_samples(card, tmp_path), open_folder(card, folder / "download.zip")):
        assert samples.layout == layout
        for one, other in zip(unpacked, everything(samples), strict=True):
            assert one.id == other.id
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.label, other.label)


def test_the_archives_of_isaid_and_xbd_where_they_belong(tmp_path):
    isaid, xbd = small("isaid"), load_card("xbd_pre")
    folder = write_dataset(isaid, tmp_path, scenes(isaid))
    pack(folder / "val/images", folder / "val/images/part1.zip")
    pack(folder / "val/Semantic_masks", folder / "val/Semantic_masks/images.zip")
    assert open_samples(isaid, tmp_path).sources == (range(0, 4), range(4, 8))
    folder = write_dataset(xbd, tmp_path, scenes(xbd))
    pack(folder, folder / "test_images_labels_targets.tar.gz")
    assert len(everything(open_samples(xbd, tmp_path))) == 2


def test_the_archives_of_the_isprs_side_by_side(tmp_path):
    card = small("potsdam")
    folder = write_dataset(card, tmp_path, scenes(card))
    pack(folder / "2_Ortho_RGB", folder / "2_Ortho_RGB.zip")
    pack(folder / "5_Labels_all_noBoundary", folder / "5_Labels_all_noBoundary.zip")
    assert len(everything(open_samples(card, tmp_path))) == 8


def test_sizes_of_packed_scenes_are_remembered_until_the_archive_changes(tmp_path, monkeypatch):
    card = small("potsdam")
    folder = write_dataset(card, tmp_path, scenes(card))
    pack(folder, folder / "download.zip")
    ids = open_samples(card, tmp_path).ids
    opened = []
    monkeypatch.setattr("bench.data.archives.File.open", lambda file: opened.append(file) or io.BytesIO())
    assert open_samples(card, tmp_path).ids == ids and not opened
    os.utime(folder / "download.zip", (1, 1))
    assert open_samples(card, tmp_path).ids != ids and opened


def test_wbs_labels_are_clean_unless_the_reference_is_asked_for(tmp_path):
    card = load_card("wbs_si")
    write_dataset(card, tmp_path, scenes(card))
    write_dataset(card, tmp_path, scenes(card), "prepared")
    clean, reference = (open_samples(card, tmp_path, layout) for layout in (None, "reference-jpeg"))
    assert clean.layout == "original"
    for good, bad in zip(everything(clean), everything(reference), strict=True):
        assert set(np.unique(good.label)) == {0, 1}
        assert 0 < (good.label != bad.label).mean() < 0.1


def test_upper_and_lower_case_of_folders_do_not_matter(loveda):
    card, root, folder = loveda
    folder.rename(root / "loveDA")
    assert len(open_samples(card, root)) == 2


def test_a_source_is_cut_from_one_decoding(tmp_path, monkeypatch):
    card = small("potsdam")
    write_dataset(card, tmp_path, scenes(card, 1))
    samples = open_samples(card, tmp_path)
    reads = []
    monkeypatch.setattr("bench.data.samples.read_bands", lambda *args: reads.append(args) or scenes(card, 1)[0][0])
    tiles = list(samples.read_source(0))
    assert len(tiles) == 4 and len(reads) == 1
    assert not np.shares_memory(tiles[0].image, tiles[1].image)


def test_reading_one_sample(tmp_path):
    card = small("isaid")
    write_dataset(card, tmp_path, scenes(card))
    samples = open_samples(card, tmp_path)
    for sample in everything(samples):
        alone = samples.read(sample.index)
        assert alone.id == sample.id
        np.testing.assert_array_equal(alone.image, sample.image)


def test_samples_travel_to_workers(loveda):
    card, root, folder = loveda
    pack(folder, folder / "Val.zip")
    samples = open_samples(card, root)
    copy = pickle.loads(pickle.dumps(samples))
    assert copy.ids == samples.ids
    np.testing.assert_array_equal(copy.read(1).label, samples.read(1).label)


def test_fingerprint_follows_names_and_sizes(loveda):
    card, root, folder = loveda
    before = open_samples(card, root).fingerprint()
    assert open_samples(card, root).fingerprint() == before
    image = folder / "Val/Rural/images_png/2522.png"
    image.write_bytes(image.read_bytes() + b" ")
    longer = open_samples(card, root).fingerprint()
    image.rename(image.with_name("2521.png"))
    (folder / "Val/Rural/masks_png/2522.png").rename(folder / "Val/Rural/masks_png/2521.png")
    assert len({before, longer, open_samples(card, root).fingerprint()}) == 3


def test_scenes(tmp_path):
    card = small("inria")
    write_dataset(card, tmp_path, scenes(card))
    samples = open_samples(card, tmp_path)
    assert {samples.scene(index) for index in range(len(samples))} == {"austin"}


def test_only_the_split_is_evaluated(tmp_path):
    card = load_card("openearthmap")
    folder = write_dataset(card, tmp_path, scenes(card)) / "OpenEarthMap_wo_xBD/aachen"
    for kind in ("images", "labels"):
        shutil.copy(folder / kind / "aachen_11.tif", folder / kind / "aachen_12345.tif")
    samples = open_samples(card, tmp_path)
    assert samples.ids == ("aachen_11", "aachen_39")
    assert len(samples.absent) == 382
    assert [warning.partition(",")[0] for warning in samples.warnings] == [
        "382 names of the split have no file",
        "1 images are not in the split and are left out",
    ]


def test_xbd_reads_nothing_from_after_the_disaster(tmp_path):
    card = load_card("xbd_pre")
    folder = write_dataset(card, tmp_path, scenes(card)) / "test"
    for path in [*folder.rglob("*_pre_*.png")]:
        shutil.copy(path, path.with_name(path.name.replace("_pre_", "_post_")))
    samples = open_samples(card, tmp_path)
    assert len(samples) == 2 and all("pre" in name for name in samples.ids)
    assert samples.warnings == ()


# --- what is not comparable


def test_official_spacenet_draws_roads_and_stretches_16_bits(tmp_path):
    import cv2
    from geo_helpers import features, georeferenced, line

    card = load_card("spacenet_road")
    image = "SpaceNet/AOI_2_Vegas/PS-RGB/SN3_roads_train_AOI_2_Vegas_PS-RGB_img1.tif"
    label = "SpaceNet/AOI_2_Vegas/geojson_roads/SN3_roads_train_AOI_2_Vegas_geojson_roads_img1.geojson"
    for path, data in ((image, georeferenced(40, 50)), (label, features(line((0, 20), (50, 20))))):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    samples = open_folder(card, tmp_path / "SpaceNet")
    assert samples.layout == "official"
    assert samples.ids == ("AOI_2_Vegas_img1",)
    assert samples.warnings[0].startswith("layout official is not comparable with published numbers")
    label_map = samples.read(0).label
    assert label_map[20].all() and not label_map[[0, 39]].any()
    np.testing.assert_array_equal(samples.read_label(0), label_map)
    deep = np.linspace(0, 4000, 2000).reshape(40, 50, 1).repeat(3, axis=-1).astype(np.uint16)
    (tmp_path / image).write_bytes(cv2.imencode(".tif", deep)[1].tobytes())
    with pytest.raises(BenchError, match="no georeference"):
        samples.read(0)


def test_official_massachusetts_tiffs(tmp_path):
    card = load_card("massachusetts_road")
    write_dataset(card, tmp_path, scenes(card), "official")
    samples = open_samples(card, tmp_path)
    assert samples.layout == "official" and "not comparable" in samples.warnings[0]


# --- real samples
