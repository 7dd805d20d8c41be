"""`bench predict` through the command line, in process, with the tiny model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from narrowed import present
from PIL import Image
from reference import tiny_backbone, write_tiny

from bench.cli import main
from bench.data.images import read_image, resize
from bench.inference.postprocess import classify
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import palette_png
from bench.models.text import Vocabulary, encode
from bench.models.upsamplers import JBUOne
from bench.registry import load_methods
from bench.settings import ResizeRule

CLASSES = "background; road; building, house"
needs_rasterio = pytest.mark.skipif(importlib.util.find_spec("rasterio") is None, reason="rasterio is not installed")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that name the tiny backbone and an upsampler for it."""
    folder = tmp_path_factory.mktemp("models")
    config, checkpoint = write_tiny(folder)
    torch.manual_seed(7)
    torch.save({f"upsampler.{k}": v for k, v in JBUOne(24).state_dict().items()}, folder / "up.ckpt")
    flags = ["--backbone", config, "--checkpoint", checkpoint, "--upsampler-checkpoint", folder / "up.ckpt"]
    return [*map(str, flags), "--device", "cpu"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """90 × 120 pixels of coarse noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    file = tmp_path / "scene.png"
    Image.fromarray(coarse.repeat(10, axis=0).repeat(10, axis=1)).save(file)
    return file


def predict(models: list[str], *flags: object, method: str = "sclip", classes: str = CLASSES) -> int:
    return main(["predict", *map(str, flags), "--method", method, "--classes", classes, *models])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistake is answered with."""
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench: ")]
    lines = [line for line in told if not line.startswith("bench: warning")]
    assert len(lines) == 1, lines
    return lines[0]


def expected(image: Path, debias: float = 0.0, long_side: int = 448) -> tuple[torch.Tensor, Row]:
    """Scores of sclip by the segmenter itself."""
    backbone, vocabulary = tiny_backbone(), Vocabulary.parse(CLASSES)
    classes = torch.tensor(vocabulary.classes)
    row = Row("sclip", load_methods()["sclip"].build({}), encode(backbone, vocabulary), classes, debias=debias)
    small = resize(read_image(image), ResizeRule(long_side=long_side))
    scores = Segmenter(backbone, [row], 224, 112).scores(small)["sclip"]
    assert isinstance(scores, torch.Tensor), scores
    return scores, row


def test_png_holds_class_numbers_and_scores_are_the_segmenters(models: list[str], image: Path, tmp_path: Path) -> None:
    out, arrays = tmp_path / "labels.png", tmp_path / "scores.npz"
    assert predict(models, image, "-o", out, "--scores", arrays) == 0
    scores, row = expected(image)
    with np.load(arrays) as stored:
        assert (stored["scores"].dtype, stored["scores"].shape) == (np.float32, (4, 336, 448))
        assert np.allclose(stored["scores"], scores.numpy(), atol=1e-6)
        labels = stored["labels"]
    assert np.array_equal(labels, classify(scores, (90, 120), row.classes, 50.0).classes)
    picture = Image.open(out)
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), labels)
    assert present(picture.getpalette())[:3] == [0, 0, 0]
    overlay = np.asarray(Image.open(tmp_path / "labels_overlay.png"))
    assert overlay.shape[1] == 120
    assert overlay.shape[0] > 90  # the legend is below
    colours = np.array(present(picture.getpalette())[:9]).reshape(3, 3)
    blended = (read_image(image).astype(int) + colours[labels]) // 2
    assert np.array_equal(overlay[:90], blended)


def test_long_side_and_debias(models: list[str], image: Path, tmp_path: Path) -> None:
    arrays = tmp_path / "scores.npz"
    flags = ("--scores", arrays, "--resize", 224, "--debias", 0.3)
    assert predict(models, image, "-o", tmp_path / "out.png", *flags) == 0
    scores, _ = expected(image, debias=0.3, long_side=224)
    assert np.allclose(np.load(arrays)["scores"], scores.numpy(), atol=1e-6)


def test_unsure_pixels_become_background(models: list[str], image: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.png"
    assert predict(models, image, "-o", out, "--threshold", 0.99, "--background", 2) == 0
    assert set(np.unique(np.asarray(Image.open(out)))) == {2}


def test_several_images_go_into_a_folder(models: list[str], image: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.jpg"
    Image.open(image).rotate(90, expand=True).save(second)
    assert predict(models, image, second, "-o", tmp_path / "out") == 0
    names = ["scene.png", "scene_overlay.png", "second.png", "second_overlay.png"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    assert Image.open(tmp_path / "out" / "second.png").size == (90, 120)


def _geotiff(path: Path, pixels: np.ndarray, **profile: object) -> None:
    import rasterio

    height, width, bands = pixels.shape
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500000, 5600000, 0.5, 0.5)}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=pixels.dtype, **place, **profile
    ) as file:
        file.write(pixels.transpose(2, 0, 1))


@needs_rasterio
@pytest.mark.parametrize("resize_flag", [("--resize", 224), ("--resize", "none")])
def test_geotiff_keeps_its_georeference(
    models: list[str], image: Path, tmp_path: Path, resize_flag: tuple[str, object]
) -> None:
    import rasterio

    source, out = tmp_path / "scene.tif", tmp_path / "labels.tif"
    _geotiff(source, read_image(image))
    assert predict(models, source, "-o", out, *resize_flag, "--scores", tmp_path / "scores.npz") == 0
    with rasterio.open(source) as before, rasterio.open(out) as after:
        assert (after.crs, after.transform) == (before.crs, before.transform)
        assert (after.count, after.dtypes, after.shape) == (1, ("uint8",), (90, 120))
        assert np.array_equal(after.read(1), np.load(tmp_path / "scores.npz")["labels"])
        assert after.colormap(1)[0] == (0, 0, 0, 255)
    assert (tmp_path / "labels_overlay.png").is_file()


@pytest.mark.slow
@needs_rasterio
def test_own_resolution_in_strips_is_the_whole_at_once(models: list[str], tmp_path: Path) -> None:
    """Several bands of windows, none of them a multiple of anything; with an upsampler and a bias."""
    coarse = np.random.default_rng(1).integers(0, 256, (53, 37, 3), dtype=np.uint8)
    pixels = coarse.repeat(9, axis=0).repeat(9, axis=1)  # 477 × 333
    _geotiff(tmp_path / "scene.tif", pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    results = {}
    for flag, source in (("none", "scene.tif"), (477, "scene.png")):
        arrays = tmp_path / f"{flag}.npz"
        flags = ("--resize", flag, "--scores", arrays, "--batch", 5)
        assert predict(models, tmp_path / source, "-o", tmp_path / f"{flag}.png", *flags, method="sclip+ours") == 0
        results[flag] = np.load(arrays)
    assert np.abs(results["none"]["scores"] - results[477]["scores"]).max() < 1e-6
    assert np.array_equal(results["none"]["labels"], results[477]["labels"])


def test_files_that_are_no_image(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, cut = tmp_path / "notes.png", tmp_path / "cut.png"
    text.write_text("no image")
    Image.new("RGB", (50, 50)).save(cut)
    cut.write_bytes(cut.read_bytes()[:60])
    for file, reason in ((tmp_path / "absent.png", "no such image"), (text, "not an image"), (cut, "cut off")):
        assert predict(models, file, "-o", tmp_path / "out.png") == 2
        message = error_of(capsys)
        assert str(file) in message
        assert reason in message


MISTAKES = {
    "--method sclp": "unknown row or method 'sclp'; did you mean sclip",
    "--method sclip+our": "unknown modifier '+our'; did you mean ours?",
    "--background 3": "--background 3: there are 3 classes",
    "--background -1": "--background -1",
    "--threshold 1.5": "--threshold 1.5",
    "--classes background;;road": "an empty class or synonym",
    "--checkpoint absent.pt": "--checkpoint absent.pt: no such file",
    "-o labels.jpg": "maps are written as .tif, .png, .gpkg, .geojson, .tiff",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_a_mistake_is_one_line(
    models: list[str], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    assert predict([*models, *flags.split()], image, "-o", tmp_path / "out.png") == 2
    assert MISTAKES[flags] in error_of(capsys)


def test_another_models_checkpoint(
    models: list[str], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.pt")
    assert predict([*models, "--checkpoint", str(tmp_path / "other.pt")], image, "-o", tmp_path / "out.png") == 2
    assert "other.pt" in error_of(capsys)


def test_where_nothing_can_be_written(
    models: list[str], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(models, image, "-o", image) == 2
    assert "would overwrite the image" in error_of(capsys)
    assert predict(models, image, "-o", image / "deeper" / "out.png") == 2
    assert "cannot be written" in error_of(capsys)
    (second := tmp_path / "second.png").write_bytes(image.read_bytes())
    assert predict(models, image, second, "-o", tmp_path / "one.png") == 2
    assert "one file for several images" in error_of(capsys)
    assert predict(models, image, second, "-o", tmp_path / "out", "--scores", tmp_path / "s.npz") == 2
    assert "holds one image" in error_of(capsys)


def test_a_plug_in_that_raises_is_named(
    models: list[str], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from bench.api import method\n@method('broken')\ndef broken(trunk):\n    raise ValueError('no luck')\n"
    )
    for flag in ("448", "none"):
        flags = ("--resize", flag, "--plugin", plugin)
        assert predict(models, image, "-o", tmp_path / "out.png", *flags, method="broken") == 2
        assert "the method 'broken' failed: ValueError: no luck" in error_of(capsys)


def test_words_that_the_demos_clip_has_not_learned_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(palette_png(np.zeros((32, 32), np.uint8), [(0, 90, 0)]))
    flags = ["--method", "maskclip", "--backbone", "demo", "--classes", "road; flamingo", "--long-side", "64"]
    assert main(["predict", str(image), *flags, "-o", str(tmp_path / "out.png")]) == 0
    assert "has not learned flamingo" in capsys.readouterr().err


def test_several_methods_make_a_map_each_in_one_pass(
    models: list[str], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(models, image, "-o", f"{tmp_path / 'both'}/", method="sclip,clip") == 0
    told = capsys.readouterr()
    assert told.out.split() == [str(tmp_path / "both" / f"scene.{name}.png") for name in ("sclip", "clip")]
    assert "6 of 6 windows" in told.err
    for name in ("sclip", "clip"):
        assert predict(models, image, "-o", tmp_path / f"{name}.png", method=name) == 0
        together, alone = (Image.open(tmp_path / file) for file in (f"both/scene.{name}.png", f"{name}.png"))
        assert np.array_equal(np.asarray(together), np.asarray(alone))
    assert predict(models, image, "-o", tmp_path / "x.png", method="clip,clip") == 2
    assert "names a method twice" in error_of(capsys)


def test_words_and_colours_of_a_dataset(models: list[str], image: Path, tmp_path: Path) -> None:
    flags = ["--method", "sclip", "--dataset", "loveda", "-o", tmp_path / "map.png", *models]
    assert main(["predict", str(image), *map(str, flags)]) == 0
    from bench.data.cards import load_card

    colours = np.array(present(Image.open(tmp_path / "map.png").getpalette())[:21]).reshape(7, 3)
    assert np.array_equal(colours, load_card("loveda").colours)


def test_a_second_command_has_nothing_to_do(
    models: list[str], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for said in ("6 of 6 windows", "its map is there"):
        assert predict(models, image, "-o", tmp_path / "map.png") == 0
        assert said in capsys.readouterr().err
    assert predict(models, image, "-o", tmp_path / "map.png", classes="grass; sand") == 0
    assert "windows" in capsys.readouterr().err


def test_a_night_goes_on_after_a_bad_scene(
    models: list[str], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a", "c"):
        (folder / f"{name}.png").write_bytes(image.read_bytes())
    Image.new("RGB", (120, 90)).save(folder / "b.png")
    plugin = tmp_path / "moody.py"
    plugin.write_text(
        "from bench.api import method, last_block\n"
        "@method('moody')\ndef moody(trunk):\n"
        "    if trunk.images.mean() < -1.5: raise ValueError('too dark')\n"
        "    return last_block(trunk, lambda q, k, v: v, residual=False, ffn=False)\n"
    )
    flags = (folder, "-o", f"{tmp_path / 'out'}/", "--plugin", plugin)
    assert predict(models, *flags, method="moody") == 1
    told = capsys.readouterr()
    assert told.out.split() == [str(tmp_path / "out" / f"{name}.png") for name in ("a", "c")]
    assert "b.png: the method 'moody' failed: ValueError: too dark" in told.err
    there = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert there == ["a.png", "a_overlay.png", "c.png", "c_overlay.png"]


@needs_rasterio
def test_a_shard_says_what_the_others_have_to_do(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _geotiff(tmp_path / "scene.tif", np.full((300, 240, 3), 90, np.uint8))
    for shard, said in (
        ("0/2", "1 of 2 strips are not there yet; the same command without --shard makes them"),
        ("1/2", ""),
    ):
        assert predict(models, tmp_path / "scene.tif", "-o", tmp_path / "map.tif", "--shard", shard) == 0
        told = capsys.readouterr()
        assert said in told.err and bool(told.out) == (shard == "1/2")
    assert (tmp_path / "map.tif").is_file()


@pytest.mark.slow
@needs_rasterio
def test_a_folder_that_was_killed_ends_as_one_that_was_not(models: list[str], tmp_path: Path) -> None:
    """Ten scenes, ended three times by a signal that cannot be answered, then by two processes."""
    import signal

    import children

    root = tmp_path / "root"
    (root / "scenes").mkdir(parents=True)
    random = np.random.default_rng(3)
    for number in range(10):
        pixels = random.integers(0, 256, (30, 26, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
        _geotiff(root / "scenes" / f"{number}.tif", pixels)
    flags = ("--method", "sclip", "--classes", CLASSES, *models, "--format", "tif,gpkg", "--batch", "4")
    command: list[str | Path] = ["predict", root / "scenes", "-o", f"{root / 'out'}/", *flags]
    whole = children.run(command, root)
    assert whole.code == 0, whole.err
    expected = contents(root / "out")
    assert len(expected) == 50  # map, its names, its style, polygons, overlay
    (root / "out").rename(root / "aside")
    for at in (whole.touched // 5, whole.touched // 3, whole.touched // 3):
        assert children.run(command, root, signal.SIGKILL, at).code == -signal.SIGKILL
    again = children.run([*command, "--processes", "2"], root)
    assert again.code == 0 and contents(root / "out") == expected, again.err


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of all files but what a killed process left unfinished."""
    found = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".tmp")
    return {file.name: file.read_bytes() for file in found}
