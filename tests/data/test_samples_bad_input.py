"""Bad input: what of a dataset is refused, and what the messages name."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_helpers import scene, scenes, small
from PIL import Image

from bench.data.cards import Card, load_card
from bench.data.label_faults import suspicious
from bench.data.layouts import DatasetMissing
from bench.data.samples import open_folder, open_samples
from bench.demo.writers import write_dataset
from bench.errors import BenchError


@pytest.fixture
def loveda(tmp_path):
    """Card, data root and folder of a generated LoveDA."""
    card = load_card("loveda")
    return card, tmp_path, write_dataset(card, tmp_path, scenes(card))


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


def test_an_archive_that_is_not_needed_blocks_nothing(loveda):
    card, root, folder = loveda
    whole = card.model_copy(update={"expected_count": 2})
    for name in ("Train.zip", "readme.zip"):
        (folder / name).write_text("<html>quota exceeded</html>")
    assert open_samples(whole, root).warnings == ()
    (warning,) = open_samples(card, root).warnings  # more is expected, and may be in it
    assert "readme.zip: not a whole zip" in warning
    shutil.rmtree(folder / "Val")
    with pytest.raises(DatasetMissing, match=r"readme\.zip: not a whole zip or tar archive"):
        open_samples(card, root)


def test_an_archive_of_something_else_is_left_out(loveda):
    card, root, folder = loveda
    with zipfile.ZipFile(folder / "My photos.zip", "w") as packed:
        packed.writestr("Val/Rural/images_png/9999.png", "")
    (warning,) = open_samples(card, root).warnings
    assert "9999.png has no label" in warning and len(open_samples(card, root)) == 2


def test_what_was_unpacked_by_half_beside_its_archive(loveda):
    card, root, folder = loveda
    with zipfile.ZipFile(folder / "Val.zip", "w") as packed:
        for file in folder.rglob("*.png"):
            packed.write(file, file.relative_to(folder).as_posix())
    (folder / "Val/Rural/masks_png/2523.png").unlink()
    assert len(open_samples(card.model_copy(update={"expected_count": 2}), root)) == 2


def test_the_more_complete_of_two_layouts_is_taken_and_said(tmp_path):
    card = load_card("loveda").model_copy(update={"expected_count": 4})
    write_dataset(card, tmp_path, scenes(card, 2))
    write_dataset(card, tmp_path, scenes(card, 4), "prepared")
    samples = open_samples(card, tmp_path)
    assert (samples.layout, len(samples)) == ("prepared", 4)
    assert samples.warnings == (f"layout original in {tmp_path / 'LoveDA'} has 2 images and is left out",)
    write_dataset(card, tmp_path, scenes(card, 4))
    assert (open_samples(card, tmp_path).layout, open_samples(card, tmp_path).warnings) == ("original", ())


def test_folders_around_the_dataset_and_names_that_only_differ(tmp_path):
    card = small("uavid")
    folder = write_dataset(card, tmp_path, scenes(card))
    inner = folder / "uavid_v1.5/uavid v1.5 image"
    inner.parent.mkdir(parents=True)
    shutil.move(folder / "test_gt", inner / "UAVID_TEST")
    assert len(open_samples(card, tmp_path).sources) == 2


def test_images_outside_the_split(tmp_path):
    card = load_card("wbs_si")
    folder = write_dataset(card, tmp_path, scenes(card, 1))
    for path in [*folder.rglob("*.jpg")]:
        path.rename(path.with_name("water_body_99999.jpg"))
    with pytest.raises(DatasetMissing, match=r"1 images, none of them in the split .*'water_body_99999', where 'wa"):
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
    folder = write_dataset(card, tmp_path, scenes(card))
    whole = len(open_samples(card, tmp_path))
    path = folder / "2_Ortho_RGB/top_potsdam_2_13_RGB.tif"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    samples = open_samples(card, tmp_path)
    assert len(samples) == whole
    with pytest.raises(BenchError, match=r"top_potsdam_2_13_RGB\.tif has 20x20 pixels, its label"):
        samples.read(0)
    label = next(folder.rglob("top_potsdam_2_13_label*"))
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(label)
    samples = open_samples(card, tmp_path)
    with pytest.raises(BenchError, match=r"_RGB\.tif: a scene of 20x20 pixels is smaller than the tile"):
        samples.read(0)
    assert samples.read(len(samples) - 1).id.startswith("2_14_")
    for broken in ("no image", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ""):
        path.write_text(broken)
        with pytest.raises(BenchError, match=r"top_potsdam_2_13_RGB\.tif: "):
            open_samples(card, tmp_path).read(0)


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
    assert reason.startswith("labels hold the value 7, but the 7 classes are 0 to 6: the labels are of another")


def test_only_where_no_label_can_be_read_the_dataset_is_refused(loveda):
    card, root, folder = loveda
    (folder / "Val/Rural/masks_png/2522.png").write_text("no image")
    assert suspicious(open_samples(card, root)) == ()
    for label in folder.rglob("masks_png/*.png"):
        label.write_text("no image")
    (reason,) = suspicious(open_samples(card, root))
    assert ".png: not an image" in reason


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


def test_a_ground_truth_in_place_of_the_images(tmp_path):
    card = small("vaihingen")
    folder = write_dataset(card, tmp_path, scenes(card, 3), "original")
    assert suspicious(open_samples(card, tmp_path)) == ()
    for image in folder.rglob("top_mosaic_09cm_area*.tif"):
        if "noBoundary" not in image.name:
            label = next(folder.rglob(f"{image.stem}_noBoundary.tif"))
            image.write_bytes(label.read_bytes())
    (reason,) = suspicious(open_samples(card, tmp_path))
    assert "the ground truth is where images should be" in reason
