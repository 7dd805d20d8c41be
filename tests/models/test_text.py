from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import tiny_backbone

from bench.data.cards import load_card
from bench.errors import BenchError
from bench.inference.postprocess import classify
from bench.models.backbone import Backbone
from bench.models.text import TEMPLATES, Vocabulary, encode, ensemble
from bench.settings import BEST_WORD, Join

WORDS = Vocabulary.parse("background; road; building, house, roof")


def test_words_become_queries_in_class_order() -> None:
    assert WORDS.queries == ("background", "road", "building", "house", "roof")
    assert WORDS.classes == (0, 1, 2, 2, 2)
    assert WORDS.names == ("background", "road", "building")
    assert WORDS.size == 3
    assert Vocabulary.parse(" background;road ;building,house , roof;") == WORDS


@pytest.mark.parametrize("text", ["", "road;;water", "road, ;water"])
def test_an_empty_word_is_an_error(text: str) -> None:
    with pytest.raises(BenchError, match="an empty class or synonym"):
        Vocabulary.parse(text)


def test_a_word_that_would_break_a_line_or_a_terminal_is_an_error() -> None:
    with pytest.raises(BenchError, match=r"'road\\x1b' holds a line break or a control character"):
        Vocabulary.parse("road\x1b; water")


def test_more_classes_than_a_label_map_holds() -> None:
    with pytest.raises(BenchError, match="256 classes; label maps are 8-bit"):
        Vocabulary.parse(";".join(f"w{i}" for i in range(256)))


def test_an_embedding_is_the_normalised_mean_over_80_templates() -> None:
    backbone = tiny_backbone()
    assert len(TEMPLATES) == 80
    sentences = [template("road") for template in TEMPLATES]
    assert sentences[0] == "a bad photo of a road."
    with torch.inference_mode():
        one_by_one = torch.stack([backbone.encode_prompts([s])[0] for s in sentences])
        mean = (one_by_one / one_by_one.norm(dim=1, keepdim=True)).mean(dim=0)
        assert torch.allclose(ensemble(backbone, "road"), mean / mean.norm(), atol=1e-6)


def test_embeddings_are_remembered_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    told: list[str] = []
    first = encode(backbone, WORDS, tmp_path, told.append)
    assert told == list(WORDS.queries)
    monkeypatch.setattr(Backbone, "encode_prompts", None)
    assert torch.equal(encode(backbone, WORDS, tmp_path, told.append), first)
    assert len(told) == 5


def test_other_weights_have_other_embeddings(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    encode(backbone, WORDS, tmp_path)
    told: list[str] = []
    other = Backbone("other", backbone.model, backbone.tokenizer, "0123456789abcdef")
    encode(other, WORDS, tmp_path, told.append)
    assert told == list(WORDS.queries)


def test_of_two_models_both_tell_apart_what_is_kept(tmp_path: Path) -> None:
    told: list[str] = []
    for fingerprint in ("0123456789abcdef-1, dinotxt 1", "0123456789abcdef-2, dinotxt 1"):
        backbone = tiny_backbone()
        backbone.fingerprint = fingerprint
        encode(backbone, WORDS, tmp_path, told.append)
    assert told == 2 * list(WORDS.queries)


def test_a_torn_file_in_the_cache_is_computed_again(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    first = encode(backbone, WORDS, tmp_path)
    for file in tmp_path.rglob("*.f32"):
        file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(encode(backbone, WORDS, tmp_path), first)


def test_a_changed_bit_or_another_word_s_file_is_computed_again(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    first = encode(backbone, WORDS, tmp_path)
    files = sorted(tmp_path.rglob("*.f32"))
    kept = [file.read_bytes() for file in files]
    for place in (0, 40, len(kept[0]) - 1):
        files[0].write_bytes(kept[0][:place] + bytes([kept[0][place] ^ 1]) + kept[0][place + 1 :])
        assert torch.equal(encode(backbone, WORDS, tmp_path), first) and files[0].read_bytes() == kept[0]
    files[0].write_bytes(kept[1])
    assert torch.equal(encode(backbone, WORDS, tmp_path), first) and files[0].read_bytes() == kept[0]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert encode(tiny_backbone(), WORDS, tmp_path / "file").shape == (5, 24)


def test_a_class_without_words_has_no_query() -> None:
    words = load_card("floodnet_ovrs_sam3").vocabularies["cvpr2025"]
    vocabulary = Vocabulary.of(words)
    assert vocabulary.classes == tuple(range(1, 10)) and vocabulary.size == len(words)
    scores = torch.randn(len(vocabulary.queries), 6, 7)
    for join in (BEST_WORD, Join("sum"), Join("logsumexp")):
        found = classify(scores, (12, 14), torch.tensor(vocabulary.classes), 50.0, join)
        assert set(np.unique(found.classes).tolist()) <= set(vocabulary.classes)
