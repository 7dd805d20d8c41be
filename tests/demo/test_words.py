"""The words that the demo's CLIP has learned."""

from __future__ import annotations

import pytest

from bench.config import load_config
from bench.data.cards import load_card
from bench.demo.content import unknown_words


@pytest.mark.parametrize("name", load_config().default_datasets)
def test_the_words_of_every_dataset_are_known(name: str) -> None:
    vocabularies = load_card(name).vocabularies
    for vocabulary in ("cvpr2025", "plain", "ov2"):  # those of other protocols hold words that the demo has not learned
        unknown = unknown_words(word for synonyms in vocabularies[vocabulary] for word in synonyms)
        assert set(unknown) <= ({"other"} if vocabulary == "plain" else set())


def test_unknown_words_are_named_in_order() -> None:
    assert unknown_words(["road", "zebra", " Store_Tank ", "sea ice", "background"]) == ("zebra", "sea ice")
