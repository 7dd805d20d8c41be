"""What the authors' folders beside the checkout prove beyond tests/golden: real files of the datasets, and the whole
outputs of the released code. Left out by default: `python -m pytest -m beside`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import everything
from PIL import Image
from second_recipe import guidance, upsampler_state

from bench.data.cards import load_card
from bench.data.check import check
from bench.data.geojson import draw_lines
from bench.data.images import read_image, resize
from bench.data.label_faults import suspicious
from bench.data.labels import read_label
from bench.data.samples import open_samples
from bench.models.upsamplers import load_upsampler
from bench.settings import ResizeRule
from bench.verify import recipe

SHARED = Path(__file__).resolve().parents[2] / "shared"
pytestmark = [pytest.mark.beside("samples"), pytest.mark.beside("golden"), pytest.mark.beside("golden-second")]

# --- files of the datasets

_ISAID_MASKS = "iSAID/val/Semantic_masks/images"

# sample file -> where the dataset has such a file; names are ones of the evaluated split
_PLACES = {
    "loveda/image/0.png": "LoveDA/Val/Rural/images_png/2522.png",
    "loveda/label/0.png": "LoveDA/Val/Rural/masks_png/2522.png",
    "loveda/image/1.png": "LoveDA/Val/Rural/images_png/2523.png",
    "loveda/label/1.png": "LoveDA/Val/Rural/masks_png/2523.png",
    "isaid/image/P0003.png": "iSAID/val/images/images/P0003.png",
    "isaid/label/P0003_instance_color_RGB.png": f"{_ISAID_MASKS}/P0003_instance_color_RGB.png",
    "isaid/image/P0005.png": "iSAID/val/images/images/P0005.png",
    "isaid/label/P0005_instance_color_RGB.png": f"{_ISAID_MASKS}/P0005_instance_color_RGB.png",
    "potsdam/image/2_10_0_0_512_512.png": "potsdam/img_dir/val/2_13_0_0_512_512.png",
    "potsdam/label/2_10_0_0_512_512.png": "potsdam/ann_dir/val/2_13_0_0_512_512.png",
    "vaihingen/image/area1_0_0_512_512.png": "vaihingen/img_dir/val/area2_0_0_512_512.png",
    "vaihingen/label/area1_0_0_512_512.png": "vaihingen/ann_dir/val/area2_0_0_512_512.png",
    "whu_aerial/image/2_102.tif": "WHU-BD/val/image/2_102.tif",
    "whu_aerial/label/2_102.tif": "WHU-BD/val/label/2_102.tif",
    "whu_aerial/image/2_1133.tif": "WHU-BD/val/image/2_1133.tif",
    "whu_aerial/label/2_1133.tif": "WHU-BD/val/label/2_1133.tif",
    "massachusetts_road/image/11278720_15.jpg": "GlobalRoadSet_Val/Massachusetts_test_49/img/11278720_15.jpg",
    "massachusetts_road/label/11278720_15.png": "GlobalRoadSet_Val/Massachusetts_test_49/gt/11278720_15.png",
    "wbs_si/image/out0.png": "WBS-SI/Images/water_body_2396.jpg",
    "wbs_si/label/out0.png": "WBS-SI/Masks/water_body_2396.jpg",
    "wbs_si/image/out1.png": "WBS-SI/Images/water_body_1074.jpg",
    "wbs_si/label/out1.png": "WBS-SI/Masks/water_body_1074.jpg",
    "wbs_si/image/out2.png": "WBS-SI/Images/water_body_2182.jpg",
    "wbs_si/label/out2.png": "WBS-SI/Masks/water_body_2182.jpg",
} | {
    f"deepglobe_road/{kind}/{name}": f"GlobalRoadSet_Val/DeepGlobe_test_1530/{folder}/{name}"
    for kind, folder, suffix in (("image", "img", "sat.jpg"), ("label", "gt", "mask.png"))
    for name in (f"{n}_{suffix}" for n in (104, 343, 1945))
}


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


def lay_out_samples(root: Path) -> None:
    """Put the real samples below a data root: loveda, isaid, potsdam and vaihingen (converted), whu_aerial,
    deepglobe_road, massachusetts_road and wbs_si."""
    for sample, place in _PLACES.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SHARED / "samples" / sample, root / place)


@pytest.mark.parametrize("name", ["oem", "synth100x224"])
def test_resize_is_that_of_the_reference(name):
    golden = np.load(SHARED / "golden/images.npz")
    source = read_image(SHARED / "samples/openearthmap/image/koeln_50.tif") if name == "oem" else golden["synth100x224"]
    np.testing.assert_array_equal(resize(source, ResizeRule(long_side=448)), golden[f"{name}_resized"])


def test_reading_a_geotiff_is_silent(capfd):
    path = SHARED / "samples/spacenet_road/image/RGB-PanSharpen_AOI_2_Vegas_img0.tif"
    with Image.open(path) as rgba:
        np.testing.assert_array_equal(read_image(path), np.asarray(rgba)[..., :3])
    assert capfd.readouterr() == ("", "")


def test_roads_of_a_real_tile():
    folder = SHARED / "samples/spacenet_road"
    mask = draw_lines(
        (folder / "label/AOI_2_Vegas_img0.geojson").read_bytes(),
        (folder / "image/RGB-PanSharpen_AOI_2_Vegas_img0.tif").read_bytes(),
        4,
        "AOI_2_Vegas_img0",
    )
    drawn = np.asarray(Image.open(folder / "label/derived_width4m_AOI_2_Vegas_img0.png")) > 0
    assert (mask & drawn).sum() / (mask | drawn).sum() > 0.94


def test_raw_and_train_ids_of_a_real_pair_agree():
    """The pair was shrunk file by file, so that some pixels at borders differ."""
    card = load_card("cityscapes")
    raw, train = (
        read_label(
            (SHARED / f"samples/cityscapes/label/frankfurt_000000_000294_gtFine_{kind}.png").read_bytes(),
            card.layouts[layout].labels,
            card,
            kind,
        )
        for kind, layout in (("labelIds", "original"), ("labelTrainIds", "prepared"))
    )
    assert (raw == train).mean() > 0.99


def test_a_real_uavid_label_has_no_colour_outside_the_table():
    card = load_card("uavid")
    data = (SHARED / "samples/uavid/label/label_only_3840x2160.png").read_bytes()
    rule = card.layouts["original"].labels.model_copy(update={"unmatched": 255})
    assert set(np.unique(read_label(data, rule, card, "label"))) == set(range(7))


def test_a_real_one_bit_label():
    card = load_card("whu_aerial")
    path = SHARED / "samples/whu_aerial/label/2_102.tif"
    label = read_label(path.read_bytes(), card.layouts["original"].labels, card, "2_102")
    np.testing.assert_array_equal(label, np.asarray(Image.open(path)))
    assert 0 < label.mean() < 0.5


@pytest.mark.parametrize("name", REAL)
def test_real_samples(name, real_root):
    samples = open_samples(load_card(name), real_root)
    assert (samples.layout, len(samples)) == REAL[name]
    assert suspicious(samples) == ()
    for sample in everything(samples):
        values = set(np.unique(sample.label).tolist()) - {255}
        assert len(values) > 1 and max(values) < len(samples.card.classes)
        assert sample.image.std() > 10


def test_real_isaid_tiles(real_root):
    samples = open_samples(load_card("isaid"), real_root)
    assert samples.sources == (range(0, 4), range(4, 6))
    assert samples.ids[1] == "P0003_0_896_251_1147"
    padded = samples.read(4)
    assert (padded.label[:, 884:] == 255).all() and not padded.image[:, 884:].any()
    assert (padded.label[:, :884] != 255).all()


@pytest.mark.parametrize("name", ["loveda", "isaid", "vaihingen", "whu_aerial", "deepglobe_road", "wbs_si"])
def test_real_samples_are_only_too_few(name: str, tmp_path: Path) -> None:
    lay_out_samples(tmp_path)
    report = check(load_card(name), tmp_path, all_labels=True)
    assert report.checked == report.images > 0
    assert all("incomplete" in problem.what for problem in report.problems if problem.severity == "error")


# --- upsamplers


@pytest.mark.parametrize("file", sorted((SHARED / "golden-second").glob("up_*.npz")), ids=lambda file: file.stem)
def test_all_that_is_stored(file: Path, tmp_path: Path) -> None:
    golden = dict(np.load(file))
    kind = file.stem.split("_")[1]
    torch.save(upsampler_state(kind), tmp_path / "weights.pth")
    new = load_upsampler(kind, tmp_path / "weights.pth", 128)
    images = np.load(SHARED / "golden" / "images.npz")
    source, _, cut = str(golden["window"]).partition("[")
    name, _, cut = cut.partition("][") if source == "images.npz" else ("", "", cut)
    whole = images[name.strip("'\"")] if name else recipe.image()
    (top, bottom), (left, right) = (map(int, part.split(":")) for part in cut.rstrip("]").split(","))
    image = guidance(whole[top:bottom, left:right], new.statistics)
    with torch.inference_mode():
        features = new(torch.from_numpy(golden["features"]).T.reshape(1, -1, 14, 14), image)[0].numpy()
    assert np.abs(features[:, 3::16, 5::16] - golden["out_stride16"]).max() < 2e-5
    assert np.abs(features[:, :8, -8:] - golden["out_corner8"]).max() < 2e-5
    stats = np.array([features.mean(dtype=float), features.std(dtype=float), np.abs(features).max()])
    assert np.abs(stats - golden["out_stats"]).max() < 2e-5
