"""Every dataset in every layout, the real samples, and each bad input."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_helpers import lay_out_samples, needs_samples, pack, scene
from PIL import Image

from bench.data.cards import Card, card_names, load_card
from bench.data.samples import DatasetMissing, SampleSet, open_folder, open_samples
from bench.data.schema import Tiling
from bench.data.suspects import suspicious
from bench.demo.writers import write_dataset
from bench.errors import BenchError


def small(name: str) -> Card:
    """The card with tiles of some ten pixels, so that scenes can be small."""
    card = load_card(name)
    if card.tiling is None:
        return card
    tiling = Tiling(width=56, height=48, overlap=card.tiling.overlap // 16, pad=card.tiling.pad)
    return card.model_copy(update={"tiling": tiling})


def scenes(card: Card, count: int = 2):
    return [scene(card, 60 + 8 * seed, 70 + 9 * seed, seed) for seed in range(count)]


def everything(samples: SampleSet):
    return [sample for source in range(len(samples.sources)) for sample in samples.read_source(source)]


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
    monkeypatch.setattr("bench.data.samples.read_image", lambda *args: reads.append(args) or scenes(card, 1)[0][0])
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
    from test_labels import features, georeferenced, line

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


# --- bad input


def test_missing_dataset(tmp_path):
    card = load_card("loveda")
    with pytest.raises(DatasetMissing, match=r"loveda: no folder LoveDA in .* Download Val\.zip"):
        open_samples(card, tmp_path)
    (tmp_path / "LoveDA").mkdir()
    with pytest.raises(DatasetMissing, match=r"nothing to evaluate in .*LoveDA \(layout original: no <Val\|val>"):
        open_samples(card, tmp_path)
    with pytest.raises(DatasetMissing, match="does not exist"):
        open_folder(card, tmp_path / "Val.zip")


def test_images_without_any_label(loveda):
    card, root, folder = loveda
    shutil.rmtree(folder / "Val/Rural/masks_png")
    with pytest.raises(DatasetMissing, match=r"layout original: images, but no .*masks_png"):
        open_samples(card, root)


def test_images_outside_the_split(tmp_path):
    card = load_card("wbs_si")
    folder = write_dataset(card, tmp_path, scenes(card, 1))
    for path in [*folder.rglob("*.jpg")]:
        path.rename(path.with_name("water_body_99999.jpg"))
    with pytest.raises(DatasetMissing, match="1 images, none of them in the split"):
        open_samples(card, tmp_path)


def test_unknown_layout(loveda):
    card, root, _ = loveda
    with pytest.raises(BenchError, match="loveda has no layout 'orginal'; did you mean original"):
        open_samples(card, root, "orginal")


def test_an_image_without_a_label_is_an_error_that_names_both(loveda):
    card, root, folder = loveda
    (folder / "Val/Rural/masks_png/2523.png").unlink()
    with pytest.raises(BenchError, match=r"images_png/2523\.png has no label; expected Val/Rural/masks_png/2523\.png"):
        open_samples(card, root)


def test_a_label_without_an_image_is_a_warning(loveda):
    card, root, folder = loveda
    (folder / "Val/Rural/images_png/2523.png").unlink()
    samples = open_samples(card, root)
    assert samples.ids == ("2522",)
    assert samples.warnings[0].startswith("1 labels have no image, e.g. ")


def test_two_images_of_one_name(loveda):
    card, root, folder = loveda
    shutil.copytree(folder / "Val/Rural", folder / "Val/Urban")
    with pytest.raises(BenchError, match=r"Rural.*2522\.png and .*Urban.*2522\.png are both sample '2522'; remove one"):
        open_samples(card, root)


def test_a_label_of_another_size(loveda):
    card, root, folder = loveda
    Image.fromarray(np.ones((60, 69), np.uint8)).save(folder / "Val/Rural/masks_png/2522.png")
    samples = open_samples(card, root)
    with pytest.raises(BenchError, match=r"2522\.png has 70x60 pixels, its label .*2522\.png has 69x60"):
        samples.read(0)
    assert samples.read(1).id == "2523"


@pytest.mark.parametrize("kind", ["images_png", "masks_png"])
def test_a_file_that_is_cut_off(loveda, kind):
    card, root, folder = loveda
    path = folder / f"Val/Rural/{kind}/2522.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BenchError, match=rf"{kind}/2522\.png: the file is cut off"):
        open_samples(card, root).read(0)


def test_a_scene_that_cannot_be_measured(tmp_path):
    card = small("potsdam")
    folder = write_dataset(card, tmp_path, scenes(card, 1))
    path = folder / "2_Ortho_RGB/top_potsdam_2_13_RGB.tif"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    with pytest.raises(
        BenchError, match=r"top_potsdam_2_13_RGB\.tif: a scene of 20x20 pixels is smaller than the tile"
    ):
        open_samples(card, tmp_path)
    path.write_text("no image")
    with pytest.raises(BenchError, match=r"top_potsdam_2_13_RGB\.tif: not an image"):
        open_samples(card, tmp_path)


def spoilt(card: Card, root: Path, change) -> tuple[str, ...]:
    """What is suspicious about the prepared layout of ten scenes whose stored labels were changed."""
    layout = "prepared" if "prepared" in card.layouts else "original"
    folder = write_dataset(card, root, scenes(card, 10), layout)
    folders = ("ann_dir", "gt", "label_cvt")
    for path in [path for path in folder.rglob("*.*") if set(folders) & set(path.parts)]:
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)
    return suspicious(open_samples(card, root, layout))


def test_tiles_of_zeros_and_ones(tmp_path):
    (reason,) = spoilt(small("isaid"), tmp_path, lambda label: np.minimum(label, 1))
    assert reason.startswith("32 labels hold only classes 0 and 1 of 16; Pillow 10.1")


def test_udd6_in_place_of_udd5(tmp_path):
    (reason,) = spoilt(load_card("udd5"), tmp_path, lambda label: label + 1)
    assert reason.startswith("labels hold the value 5, but the 5 classes are 0 to 4: this is UDD6")


def test_masks_that_were_not_converted(tmp_path):
    (reason,) = spoilt(load_card("whu_aerial"), tmp_path, lambda label: label * 255)
    assert reason.startswith("10 labels hold only class 0: masks of 0 and 255 that were not converted")


def test_labels_of_something_else(tmp_path):
    (reason,) = spoilt(load_card("loveda"), tmp_path, lambda label: label + (label == 7))
    assert reason.startswith("labels hold the value 7, but the 7 classes are 0 to 6: the labels are those of another")


def test_labels_that_cannot_be_read_are_suspicious(loveda):
    card, root, folder = loveda
    (folder / "Val/Rural/masks_png/2522.png").write_text("no image")
    (reason,) = suspicious(open_samples(card, root))
    assert "2522.png: not an image" in reason


def test_the_writer_refuses_what_a_layout_cannot_hold(tmp_path):
    card = load_card("uavid")
    image, label = scene(card, 20, 20)
    with pytest.raises(BenchError, match="cannot hold the label value 255"):
        write_dataset(card, tmp_path, [(image, np.full_like(label, 255))])
    card = load_card("potsdam")
    tile = (np.zeros((512, 512, 3), np.uint8), np.zeros((512, 512), np.uint8))
    with pytest.raises(BenchError, match="more scenes than the split has names"):
        write_dataset(card, tmp_path, [tile] * 15)
    with pytest.raises(BenchError, match="labels drawn from lines cannot be written"):
        write_dataset(load_card("spacenet_road"), tmp_path, [tile], "official")


# --- real samples

REAL = {
    "loveda": ("original", 2),
    "isaid": ("original", 6),
    "potsdam": ("prepared", 1),
    "vaihingen": ("prepared", 1),
    "whu_aerial": ("original", 2),
    "deepglobe_road": ("original", 3),
    "massachusetts_road": ("original", 1),
    "wbs_si": ("original", 3),
}


@pytest.fixture(scope="module")
def real_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    lay_out_samples(root)
    return root


@needs_samples
@pytest.mark.parametrize("name", REAL)
def test_real_samples(name, real_root):
    samples = open_samples(load_card(name), real_root)
    assert (samples.layout, len(samples)) == REAL[name]
    assert suspicious(samples) == ()
    for sample in everything(samples):
        values = set(np.unique(sample.label).tolist()) - {255}
        assert len(values) > 1 and max(values) < len(samples.card.classes)
        assert sample.image.std() > 10


@needs_samples
def test_real_isaid_tiles(real_root):
    samples = open_samples(load_card("isaid"), real_root)
    assert samples.sources == (range(0, 4), range(4, 6))
    assert samples.ids[1] == "P0003_0_896_251_1147"
    padded = samples.read(4)
    assert (padded.label[:, 884:] == 255).all() and not padded.image[:, 884:].any()
    assert (padded.label[:, :884] != 255).all()
