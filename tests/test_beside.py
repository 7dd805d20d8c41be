"""The authors' folders beside the checkout, for what they prove beyond tests/golden: real files of the datasets, the
paper's numbers, and the whole outputs of the released code. Left out by default: `python -m pytest -m beside`.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import everything
from golden_helpers import CASES, GOLDENS, VOCABULARY, Case, built, image, near, stitched
from narrowed import tensor
from numpy.typing import NDArray
from PIL import Image
from second_recipe import guidance, mixture_case, second, upsampler_state

from bench.config import load_config
from bench.data.cards import load_card
from bench.data.check import check
from bench.data.fetch import git_blob_hash
from bench.data.geojson import draw_lines
from bench.data.images import read_image, resize
from bench.data.label_faults import suspicious
from bench.data.labels import read_label
from bench.data.samples import open_samples
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.text import encode
from bench.models.upsamplers import BilateralUpsampler, load_upsampler
from bench.registry import find_refinement, load_methods
from bench.report.published import load_published
from bench.settings import ResizeRule
from bench.verify import recipe
from bench.verify.goldens import RUNS, Bed

SHARED = Path(__file__).resolve().parents[2] / "shared"
pytestmark = [
    pytest.mark.beside,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the authors' folders are not beside the checkout"),
]

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


@pytest.mark.parametrize("name", [file.name for file in sorted((SHARED / "golden-second").glob("up_*.npz"))])
def test_all_that_is_stored(name: str, tmp_path: Path) -> None:
    file = SHARED / "golden-second" / name
    golden = dict(np.load(file))
    kind = file.stem.split("_")[1]
    torch.save(upsampler_state(kind), tmp_path / "weights.pth")
    new = load_upsampler(kind, tmp_path / "weights.pth", 128)
    images = np.load(SHARED / "golden" / "images.npz")
    source, _, cut = str(golden["window"]).partition("[")
    picture, _, cut = cut.partition("][") if source == "images.npz" else ("", "", cut)
    whole = images[picture.strip("'\"")] if picture else recipe.image()
    (top, bottom), (left, right) = (map(int, part.split(":")) for part in cut.rstrip("]").split(","))
    image = guidance(whole[top:bottom, left:right], new.statistics)
    with torch.inference_mode():
        features = new(torch.from_numpy(golden["features"]).T.reshape(1, -1, 14, 14), image)[0].numpy()
    assert np.abs(features[:, 3::16, 5::16] - golden["out_stride16"]).max() < 2e-5
    assert np.abs(features[:, :8, -8:] - golden["out_corner8"]).max() < 2e-5
    stats = np.array([features.mean(dtype=float), features.std(dtype=float), np.abs(features).max()])
    assert np.abs(stats - golden["out_stats"]).max() < 2e-5


def test_the_released_checkpoint() -> None:
    file = SHARED / "checkpoints" / "clip_jbu_stack_cocostuff.ckpt"
    upsampler = load_upsampler("jbu_stack", file, 512)
    assert isinstance(upsampler, BilateralUpsampler)
    assert git_blob_hash(file) == "c90968f78af172c4a81f8575a3ebc2bda81c3eef"
    with torch.no_grad():
        for module in upsampler.modules_for(4):
            sums = module.kernels(torch.randn(1, 3, 32, 32)).sum(1)
            assert 0.75 < sums.mean() < 1.15
        smooth = torch.nn.functional.interpolate(torch.randn(1, 512, 2, 2), (4, 4), mode="bilinear")
        guidance = torch.zeros(1, 3, 64, 64)
        pixels = upsampler(smooth, guidance)
        nearest = torch.nn.functional.interpolate(smooth, (64, 64), mode="bilinear")
    assert torch.cosine_similarity(pixels, nearest, dim=1).mean() > 0.9


# --- the paper

TABLES = [number for number in load_config().tables if number.isdigit()]


@pytest.mark.parametrize("number", TABLES)
def test_every_number_is_the_papers(number: str) -> None:
    text = (SHARED / "paper.txt").read_text(encoding="utf-8")
    table = re.sub(r"↑ ?<b>[\d.]+</b>|↑ ?\*\*[\d.]+\*\*|</?b>|<sup>.*?</sup>|\*\*", "", text)
    table = table[table.index(f"Table {number}.") :]
    printed: list[list[Decimal]] = []
    for line in table.splitlines()[1:]:
        cells = [cell.strip() for cell in line.split("\t")]
        numbers = [cell for cell in cells[1:] if re.fullmatch(r"\d+\.\d|-", cell)]
        if line.startswith(("Table", "#")) or (printed and not line.strip()):
            break
        if numbers:
            printed.append([Decimal(cell) for cell in numbers if cell != "-"])
    ours = [
        [*row.values.values(), *([row.average] if row.average is not None else [])]
        for row in load_published(load_config().tables[number].published).values()
    ]
    assert ours == printed


# --- scores and labels of the released code


@pytest.fixture(scope="module")
def bed() -> Bed:
    return Bed("cpu", "fp32")


@pytest.fixture(scope="module")
def released(bed: Bed) -> dict[str, torch.Tensor]:
    """Scores of every run on a real image."""
    scores = bed.segmenter().scores(square())
    return {name: found for name, found in scores.items() if isinstance(found, torch.Tensor)}


def square() -> NDArray[np.uint8]:
    """A real image of OpenEarthMap at 448 x 448."""
    pixels: NDArray[np.uint8] = np.load(SHARED / "golden" / "images.npz")["oem_resized"]
    return pixels


@pytest.mark.parametrize("run", RUNS)
def test_scores_and_labels_are_those_of_the_released_code(
    run: str, released: dict[str, torch.Tensor], bed: Bed
) -> None:
    base = "d_oem_logits_base" if RUNS[run].upsampler == "none" else "d_oem_logits_up"
    expected = np.load(SHARED / "golden" / f"{base}.npz")
    scores = released[run]
    np.testing.assert_allclose(scores[:, ::9, ::9], expected[f"{run}/preds_stride9"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(scores[:, 100:124, 100:124], expected[f"{run}/preds_patch24"], atol=2e-5, rtol=0)
    labels = np.load(SHARED / "golden" / "d_oem_labels.npz")
    clear = ~np.unpackbits(labels[f"{run}/ambiguous_packed"], count=1000 * 1000).reshape(1000, 1000).astype(bool)
    (row,) = (row for row in bed.rows if row.name == run)
    at_a_tenth, at_three = (replace(row, threshold=value).label_map(scores, (1000, 1000)) for value in (0.1, 0.3))
    assert np.array_equal(at_a_tenth[clear], labels[f"{run}/label"][clear])
    assert (at_three != labels[f"{run}/label_thd0.3"]).sum() <= 5


TOLERANCE = {"floss": 2e-4, "dihclip": 1e-4}  # of stitched scores; 2e-5 for the others


@pytest.mark.parametrize("golden", GOLDENS)
def test_stitched_scores(golden: str, bed: Bed, tmp_path: Path) -> None:
    name, refine = GOLDENS[golden]
    method, text = built(bed, golden, tmp_path)
    row = Row(
        golden,
        method,
        text,
        torch.tensor(VOCABULARY.classes),
        takes_text=load_methods()[name].takes_text,
        refine=find_refinement(refine).apply if refine else None,
    )
    whole = np.load(SHARED / "golden-methods" / f"{golden}.npz")
    for key, pixels in {"sq": square(), "rect": square()[64:384]}.items():
        scores = Segmenter(bed.backbone, [row], 224, 112, 9).scores(np.ascontiguousarray(pixels))[golden]
        assert isinstance(scores, torch.Tensor), scores
        bound = TOLERANCE.get(golden, 2e-5)
        for found, expected in (
            (scores[:, ::13, ::13], whole[f"{key}/preds_stride13"]),
            (scores[:, 100:112, 100:112], whole[f"{key}/preds_patch12"]),
        ):
            np.testing.assert_allclose(found, expected, atol=bound, rtol=0)


@pytest.mark.parametrize("name", ["sq_plain", "sq_ks", "sq_pd", "sq_kspd", "rect_kspd"])
def test_maskclip_on_whole_images(name: str, bed: Bed, tmp_path: Path) -> None:
    pixels = {"sq": square(), "rect": square()[64:384]}[name.partition("_")[0]]
    more = {"key_smoothing": float("ks" in name), "denoising": 0.5 if "pd" in name else 0.0}
    method, text = built(bed, "maskclip_kspd", tmp_path, **more)
    windows = bed.backbone.trunk(bed.backbone.normalise(torch.from_numpy(np.ascontiguousarray(pixels)))[None])
    with torch.inference_mode():
        scores = method.scores(windows, text)[0]
    expected = np.load(SHARED / "golden-methods" / "maskclip_kspd.npz")[f"{name}/output"]
    np.testing.assert_allclose(scores[:, ::3, ::3], expected, atol=5e-4, rtol=0)


def test_pamr_at_the_original_size(bed: Bed) -> None:
    refine = find_refinement("pamr-original")
    assert refine.at_original
    text, method = encode(bed.backbone, VOCABULARY), load_methods()["naclip"].build({})
    classes = torch.tensor(VOCABULARY.classes)
    row = Row("x", method, text, classes, refine=refine.apply, refine_original=True)
    scores = tensor(Segmenter(bed.backbone, [row], 224, 112, 9).scores(square(), None, (640, 640))["x"])
    whole = np.load(SHARED / "golden-methods" / "naclip_pamr.npz")
    np.testing.assert_allclose(scores[:, ::19, ::19], whole["sq_original640/scores_stride19"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_scores_and_labels(case: Case, bed: Bed) -> None:
    golden = dict(np.load(SHARED / "golden-second" / f"{case.file}.npz"))
    scores = stitched(bed, case, square() if case.file.endswith("oem") else image(case))
    near(case, scores[:, ::12, ::12].numpy(), golden[f"{case.run}/preds_stride12"])
    near(case, scores[:, 100:110, 100:110].numpy(), golden[f"{case.run}/preds_patch10"])
    row = Row(
        case.method,
        load_methods()[case.method].build({}),
        torch.empty(0),
        torch.tensor(VOCABULARY.classes),
        scale=1.0 if case.method == "lposs" else 40.0,
        threshold=0.1 if case.method == "proxyclip" else 0.0,
    )
    height, width = (int(side) for side in golden["original_size"])
    label = row.label_map(scores, (height, width))
    packed = golden[f"{case.run}/ambiguous_packed"]
    clear = ~np.unpackbits(packed, count=label.size).astype(bool).reshape(label.shape)
    assert clear.mean() > 0.9
    assert np.array_equal(label[clear], golden[f"{case.run}/label"][clear])


def test_the_recipe_is_that_of_the_goldens() -> None:
    spec = importlib.util.spec_from_file_location("second_weights", SHARED / "golden-second" / "second_weights.py")
    assert spec and spec.loader
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    for kind in ("dino8", "dino16", "dinov2", "sam"):
        wanted = theirs.torch_state(kind) if kind == "sam" else theirs.timm_state(kind)
        wanted = {key.replace("mlp.lin", "mlp.fc"): value for key, value in wanted.items()}
        found = second(kind).model.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    for found, wanted in zip(mixture_case(), theirs.gmm_case(), strict=True):
        assert np.array_equal(found, wanted)
