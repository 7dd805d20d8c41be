"""Label rules: every way of storing classes, and every known way of spoiling them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from geo_helpers import encoded, features, georeferenced, line
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from bench.data.cards import load_card
from bench.data.geojson import draw_lines
from bench.data.labels import read_label
from bench.data.schema import IndexRule, PaletteRule, ThresholdRule
from bench.errors import BenchError


def grey(*rows) -> bytes:
    return encoded(np.array(rows, np.uint8))


def rgb(*rows) -> bytes:
    return encoded(np.array(rows, np.uint8))


def test_index_keeps_values_as_they_are():
    label = read_label(grey([0, 8], [9, 255]), IndexRule(), load_card("openearthmap"), "a.tif")
    assert label.tolist() == [[0, 8], [9, 255]]
    assert label.dtype == np.uint8


def test_reduce_zero():
    label = read_label(grey([0, 1], [7, 255]), IndexRule(reduce_zero=True), load_card("loveda"), "a.png")
    assert label.tolist() == [[255, 0], [6, 255]]


def test_raw_ids():
    cityscapes, coco = load_card("cityscapes"), load_card("coco_stuff164k")
    label = read_label(grey([7, 33], [34, 255]), cityscapes.layouts["original"].labels, cityscapes, "a.png")
    assert label.tolist() == [[0, 18], [255, 255]]
    raw = coco.layouts["original"].labels.raw_ids
    assert (raw[10], raw[11], raw[-1]) == (10, 12, 181)
    assert not {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90} & set(raw)


def test_palette_images_give_their_indices():
    image = Image.fromarray(np.array([[0, 2], [4, 1]], np.uint8))
    image.putpalette([9, 9, 9] * 200)
    assert read_label(encoded(image), IndexRule(), load_card("udd5"), "a.png").tolist() == [[0, 2], [4, 1]]


def test_potsdam_colours():
    card = load_card("potsdam")
    row = [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0], [0, 0, 0]]
    label = read_label(rgb(row), card.layouts["original"].labels, card, "a.tif")
    assert label.tolist() == [[0, 1, 2, 3, 4, 5, 255]]


def test_unmatched_and_merged_colours():
    card = load_card("uavid")
    pixels = np.zeros((6, 10, 3), np.uint8)
    pixels[0, :4] = [[128, 0, 0], [192, 0, 192], [64, 0, 128], [1, 2, 3]]
    label = read_label(encoded(pixels), card.layouts["original"].labels, card, "a.png")
    assert label[0, :5].tolist() == [1, 3, 3, 0, 0]
    ignored = read_label(encoded(pixels), PaletteRule(rule="palette"), card, "a.png")
    assert ignored[0, :5].tolist() == [1, 3, 255, 255, 0]


def test_binarise_takes_noise_off_colours():
    rule = PaletteRule(rule="palette", binarise=True, also=((0, 0, 0, 255),))
    noisy = rgb([[250, 3, 120], [128, 255, 127], [0, 127, 129]])
    assert read_label(noisy, rule, load_card("potsdam"), "a.tif").tolist() == [[5, 4, 1]]


def test_thresholds():
    card = load_card("xbd_pre")
    values = grey([0, 1], [127, 128])
    assert read_label(values, ThresholdRule(rule="threshold"), card, "a").tolist() == [[0, 0], [0, 1]]
    assert read_label(values, ThresholdRule(rule="threshold", at=1), card, "a").tolist() == [[0, 1], [1, 1]]
    colours = rgb([[255, 255, 255], [0, 0, 0]])
    assert read_label(colours, ThresholdRule(rule="threshold"), card, "a").tolist() == [[1, 0]]


@pytest.mark.parametrize("photometric", [0, 1])
def test_one_bit_masks(photometric):
    mask = np.array([[True, False, True]])
    info = ImageFileDirectory_v2()
    info[262] = photometric  # WhiteIsZero or BlackIsZero
    data = encoded(mask, "TIFF", compression="tiff_ccitt", tiffinfo=info)
    assert read_label(data, ThresholdRule(rule="threshold"), load_card("whu_aerial"), "a").tolist() == [[1, 0, 1]]


def test_reference_jpeg_is_what_saving_the_mask_as_jpeg_gives():
    mask = (np.random.default_rng(0).random((40, 50)) > 0.5).astype(np.uint8)
    saved = np.asarray(Image.open(io.BytesIO(encoded(mask, "JPEG", quality=95))))
    rule = load_card("wbs_si").layouts["reference-jpeg"].labels
    label = read_label(encoded(mask * 255), rule, load_card("wbs_si"), "a.png")
    np.testing.assert_array_equal(label, saved)
    assert set(np.unique(label)) == {0, 1, 2}


@pytest.mark.parametrize("name", ["isaid", "uavid"])
def test_labels_of_one_bit_are_refused(name):
    card = load_card(name)
    spoilt = Image.fromarray(np.array([[0, 1, 1]], np.uint8))
    spoilt.putpalette([0, 0, 0, 255, 255, 255])
    for data in (encoded(spoilt, bits=1), encoded(np.array([[False, True, True]]))):
        with pytest.raises(BenchError, match=r"t\.png: the label has one bit a pixel.*Pillow 10\.1"):
            read_label(data, card.layouts["prepared"].labels, card, "t.png")


def test_overlays_are_refused():
    card = load_card("potsdam")
    photo = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    with pytest.raises(
        BenchError, match=r"top_potsdam_4_12.*100% of the pixels have a colour that stands for no class"
    ):
        read_label(encoded(photo), card.layouts["original"].labels, card, "top_potsdam_4_12_label.tif")


def test_colours_and_indices_are_not_mixed_up():
    card = load_card("potsdam")
    with pytest.raises(BenchError, match=r"a\.tif: the label is grey where colours are expected"):
        read_label(grey([0, 76]), card.layouts["original"].labels, card, "a.tif")
    with pytest.raises(BenchError, match=r"a\.png: the label has colours where class numbers are expected"):
        read_label(rgb([[255, 0, 0]]), card.layouts["prepared"].labels, card, "a.png")


def test_unreadable_labels_are_refused():
    card = load_card("loveda")
    whole = encoded(np.random.default_rng(0).integers(0, 8, (50, 50), dtype=np.uint8))
    for data, reason in (
        (whole[:-40], "cut off"),
        (b"<html>", "not an image"),
        (encoded(np.zeros((4, 4), np.int32), "TIFF"), "pixels; labels are 8-bit"),
    ):
        with pytest.raises(BenchError, match=rf"a\.png: .*{reason}"):
            read_label(data, IndexRule(), card, "a.png")


def test_lines_are_as_wide_as_said():
    metres = 4 * 3e-6 * 111_320  # four pixels
    mask = draw_lines(features(line((2, 10), (18, 10))), georeferenced(20, 20), metres, "a")
    assert mask[:, 10].tolist() == [0] * 8 + [1] * 4 + [0] * 8
    assert mask[10].tolist()[:4] == [1, 1, 1, 1] and mask[10, 19] == 1  # round ends
    mask = draw_lines(features(line((10, -50), (10, 90))), georeferenced(20, 20), metres, "a")
    assert (mask == ([0] * 8 + [1] * 4 + [0] * 8)).all()


def test_lines_of_all_kinds():
    parts = [line((0, 1), (20, 1))["coordinates"], line((0, 5), (20, 5))["coordinates"]]
    collection = features(
        {"type": "MultiLineString", "coordinates": parts}, None, {"type": "Point", "coordinates": [0, 0]}
    )
    mask = draw_lines(collection, georeferenced(8, 8), 2 * 3e-6 * 111_320, "a")
    assert mask[:, 3].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert not draw_lines(features(), georeferenced(4, 6), 4, "a").any()


def test_lines_need_a_georeference():
    with pytest.raises(BenchError, match=r"a\.geojson: its image has no georeference"):
        draw_lines(features(), encoded(np.zeros((4, 4, 3), np.uint8), "TIFF"), 4, "a.geojson")
    with pytest.raises(BenchError, match=r"a\.geojson: its image is not in degrees"):
        draw_lines(features(), georeferenced(4, 4, 0.3, 500_000.0, 4_000_000.0), 4, "a.geojson")
    with pytest.raises(BenchError, match=r"a\.geojson: not a GeoJSON"):
        draw_lines(b"[]", georeferenced(4, 4), 4, "a.geojson")


def test_labels_of_a_class_that_is_not_counted_are_ignored():
    card = load_card("floodnet_gsnet")
    label = read_label(grey([0, 1], [9, 0]), IndexRule(), card, "a.png")
    assert label.tolist() == [[255, 1], [9, 255]] and label.flags.writeable
    assert read_label(grey([0, 1]), IndexRule(), load_card("floodnet"), "a.png").tolist() == [[0, 1]]
