"""Image lists, crops and the order of a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import write_images

from bench.errors import BenchError
from bench.training.crops import Crops, Schedule, find_images, load_crops, normalise, random_crop


def test_folders_are_searched_and_other_files_counted(tmp_path):
    write_images(tmp_path, 4)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "more" / ".hidden.png").write_bytes(b"")
    images = find_images(tmp_path)
    assert [path.name for path in images.paths] == ["0.png", "2.png", "1.png", "3.png"]
    assert images.others == 2


def test_a_list_chooses_images_in_its_order(tmp_path):
    write_images(tmp_path, 4)
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("more/3.png\n\n0.png\n")
    assert find_images(tmp_path, chosen).paths == (tmp_path / "more/3.png", tmp_path / "0.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [("0.png\ngone.png\n", "1 of 2 files do not exist .*gone.png"), (None, "cannot be read")],
)
def test_a_wrong_list_is_named(tmp_path, text, message):
    write_images(tmp_path, 1)
    chosen = tmp_path / "chosen.txt"
    if text is not None:
        chosen.write_text(text)
    with pytest.raises(BenchError, match=message):
        find_images(tmp_path, chosen)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BenchError, match="nowhere: no such folder"):
        find_images(tmp_path / "nowhere")


def test_crops_come_from_everywhere_in_the_image():
    image = np.arange(36, dtype=np.uint8).reshape(6, 6, 1).repeat(3, axis=2)
    corners = {int(random_crop(image, 4, np.random.default_rng(seed))[0, 0, 0]) for seed in range(100)}
    assert corners == {0, 1, 2, 6, 7, 8, 12, 13, 14}


def test_a_small_image_is_reflected_on_both_sides():
    image = np.arange(3, dtype=np.uint8)[:, None, None].repeat(5, axis=1).repeat(3, axis=2)
    rows = {tuple(random_crop(image, 5, np.random.default_rng(seed))[:, 0, 0]) for seed in range(60)}
    # 3 rows lack 2, which are reflected above and below: 2 1 0 1 2 1 0
    assert rows == {(2, 1, 0, 1, 2), (1, 0, 1, 2, 1), (0, 1, 2, 1, 0)}


def test_crops_depend_on_seed_epoch_and_image_alone(tmp_path):
    paths = find_images(write_images(tmp_path, 3)).paths
    crop = Crops(paths, 8, seed=1)[2, 1].pixels
    assert torch.equal(crop, Crops(paths, 8, seed=1)[2, 1].pixels)
    others = [Crops(paths, 8, seed=2)[2, 1].pixels, Crops(paths, 8, seed=1)[3, 1].pixels]
    assert not any(torch.equal(crop, other) for other in others)


def test_a_truncated_image_is_named_and_the_next_stands_in(tmp_path):
    paths = find_images(write_images(tmp_path, 3)).paths
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    crop = Crops(paths, 48, seed=0)[0, 0]
    assert len(crop.unreadable) == 1
    assert str(paths[0]) in crop.unreadable[0]
    assert np.array_equal(crop.pixels.numpy(), np.asarray(Image.open(paths[1])))


def test_no_readable_image_is_an_error(tmp_path):
    paths = find_images(write_images(tmp_path, 2)).paths
    for path in paths:
        path.write_bytes(b"not an image")
    with pytest.raises(BenchError, match=r"none of the 2 training images can be read.*0\.png"):
        Crops(paths, 16, seed=0)[0, 0]


def test_an_epoch_shows_each_image_once_in_a_new_order():
    schedule = Schedule(images=10, batch=3, processes=1, seed=0)
    assert schedule.steps_per_epoch == 3
    epochs = [[key for batch in schedule.batches(first, first + 3, 0) for key in batch] for first in (0, 3)]
    for number, keys in enumerate(epochs):
        assert {epoch for epoch, _ in keys} == {number}
        assert len({image for _, image in keys}) == 9
    assert [image for _, image in epochs[0]] != [image for _, image in epochs[1]]


def test_steps_in_parts_and_in_processes_are_those_of_the_whole():
    whole = list(Schedule(images=13, batch=4, processes=1, seed=5).batches(0, 7, 0))
    assert whole[2:5] == list(Schedule(13, 4, 1, 5).batches(2, 5, 0))
    halves = [list(Schedule(images=13, batch=2, processes=2, seed=5).batches(0, 7, rank)) for rank in (0, 1)]
    assert whole == [first + second for first, second in zip(*halves, strict=True)]


def test_too_few_images_for_a_step():
    with pytest.raises(BenchError, match="7 training images are fewer than a batch of 4 x 2 processes"):
        Schedule(images=7, batch=4, processes=2, seed=0)


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    crops = Crops(find_images(write_images(tmp_path, 4)).paths, 16, seed=0)
    schedule = Schedule(images=4, batch=2, processes=1, seed=0)
    here, there = (list(load_crops(crops, schedule.batches(0, 2, 0), workers)) for workers in (0, 1))
    for first, second in zip(here, there, strict=True):
        assert torch.equal(first.pixels, second.pixels)


def test_normalisation():
    white = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    red, green, blue = normalise(white, "imagenet", torch.device("cpu")).flatten().tolist()
    assert red == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)
    assert green == pytest.approx((1 - 0.456) / 0.224, rel=1e-5)
    assert blue == pytest.approx((1 - 0.406) / 0.225, rel=1e-5)
    clip = normalise(white, "clip", torch.device("cpu")).flatten()
    assert clip[0].item() == pytest.approx((255 - 122.771) / 68.501, rel=1e-5)
