"""Captions, and the crops that they fit."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest

from bench.demo.content import MASTER, MASTER_INDEX, WORDS
from tools.demo.captions import Captions, draw_captions, matches, sentences_of_training, word_shares


def _shares(**parts: float) -> np.ndarray:
    shares = np.zeros((1, len(MASTER)), np.float32)
    for name, share in parts.items():
        shares[0, MASTER_INDEX[name]] = share
    return shares


def _captions(*texts: tuple[str, ...]) -> Captions:
    says = np.zeros((len(texts), len(WORDS)), bool)
    for row, words in enumerate(texts):
        says[row, [WORDS.index(word) for word in words]] = True
    return Captions(tuple(", ".join(words) for words in texts), says)


def test_a_word_covers_all_of_its_classes() -> None:
    shares = word_shares(_shares(grass=0.5, tree=0.3, car=0.2))[0]
    named = dict(zip(WORDS, shares.tolist(), strict=True))
    assert named["vegetation"] == pytest.approx(0.8)
    assert named["low vegetation"] == pytest.approx(0.5)
    assert named["vehicle"] == named["small vehicle"] == pytest.approx(0.2)
    assert named["large vehicle"] == named["water"] == 0
    assert 0 < named["background"] < 0.1  # true of everything, and says little


def test_matches_by_hand() -> None:
    captions = _captions(("grass",), ("grass", "tree"), ("water",), ("car",), ("car", "water"))
    weight, unsure = matches(_shares(grass=0.79, tree=0.2, car=0.01), captions)
    np.testing.assert_allclose(weight[0], [0.79, 0.2, 0, 0, 0], atol=1e-6)
    assert unsure[0].tolist() == [False, False, False, True, False]


def test_every_caption_of_several_words_is_true_of_a_crop() -> None:
    shares = np.concatenate([_shares(grass=0.5, road=0.5), _shares(water=1.0)])
    captions = draw_captions(np.random.default_rng(0), shares, several=20)
    assert captions.says[: len(WORDS)].sum() == len(WORDS)  # each word once, alone
    weight, _ = matches(shares, captions)
    assert (weight[:, len(WORDS) :] > 0).any(0).all()
    assert len(captions.sentences) == len(captions.says) == len(WORDS) + 20


def test_sentences_of_training_hold_every_token_of_captions() -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=32)
    known = set(tokenizer(list(sentences_of_training())).unique().tolist())
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(len(MASTER), 0.2), 30).astype(np.float32)
    for _ in range(5):
        drawn = tokenizer(list(draw_captions(rng, shares, 30).sentences))
        assert set(drawn.unique().tolist()) <= known
        assert (drawn[:, -1] == 0).all()  # none is cut at the context length
