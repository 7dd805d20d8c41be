"""The pages on datasets say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from data_helpers import scene

from bench.data.cards import card_names, load_card
from bench.data.samples import open_samples
from bench.demo.writers import write_dataset
from tools.site_pages import catalogue

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_of_datasets_has_every_card():
    page = catalogue()
    assert all(f"\n## {name}\n" in page for name in card_names())
    assert "| [loveda](#loveda) | LoveDA | semantic | 7 | 1,669 | 0.3 |" in page


def test_the_example_of_a_new_dataset_works(tmp_path):
    text = (DOCS / "adding-a-dataset.md").read_text(encoding="utf-8")
    (card_text,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "coastline.yaml").write_text(card_text)
    card = load_card("coastline", [tmp_path])
    image, label = scene(card, 40, 50)
    label[:5] = 255
    folder = write_dataset(card, tmp_path / "data", [(image, label), (image, label)])
    assert (folder / "Coastline/test/rgb/spain_0001.jpg").is_file()
    samples = open_samples(card, tmp_path / "data")
    assert samples.ids == ("spain_0001", "spain_0002")
    assert samples.scene(1) == "spain"
    np.testing.assert_array_equal(samples.read(1).label, label)
