"""Named protocols, templates, and how the words of a class make its score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.errors import BenchError
from bench.inference.postprocess import TAU, classify, classify_binned, of_classes
from bench.models.text import filled
from bench.settings import Overrides
from bench.store.store import Store

CONFIG = load_config()


def settings(row: str, dataset: str = "isaid", method: Overrides | None = None):  # type: ignore[no-untyped-def]
    return CONFIG.settings_of(row, load_card(dataset), method or Overrides())


def test_a_protocol_stands_between_the_method_and_the_row() -> None:
    vip = settings("sclip[protocol=vip]")
    assert (vip.vocabulary, vip.threshold, vip.scale, vip.window, vip.aggregate) == ("vip", 0.3, 40, 336, "logsumexp")
    assert settings("sclip[protocol=vip,threshold=0.5,scale=50]").threshold == 0.5
    plain = settings("segearth-ov[protocol=rs-ovss]", method=Overrides(upsampler="simfeatup", debias=0.3))
    assert (plain.upsampler, plain.debias, plain.threshold) == ("none", 0, 0)
    own = settings("sclip")
    assert (own.aggregate, own.templates, own.threshold) == ("max", "imagenet", load_card("isaid").threshold)
    with pytest.raises(BenchError, match="unknown protocol 'vipp'; did you mean vip"):
        settings("sclip[protocol=vipp]")
    with pytest.raises(BenchError, match="dataset loveda has no vocabulary 'vip'"):
        settings("sclip[protocol=vip]", "loveda")


def test_every_shipped_protocol_fits_the_datasets_that_it_has_thresholds_for() -> None:
    for name, protocol in CONFIG.protocols.items():
        for dataset in protocol.thresholds:
            found = settings(f"sclip[protocol={name}]", dataset)
            assert found.threshold == protocol.thresholds[dataset]
        assert protocol.source or protocol.vocabulary in ("plain",)


def test_the_first_word_of_each_class_alone() -> None:
    card = load_card("openearthmap")
    assert [list(words) for words in CONFIG.words(card, "cvpr2025/first")] == [
        [words[0]] for words in card.vocabularies["cvpr2025"]
    ]
    with pytest.raises(BenchError, match="has no vocabulary 'no/first'"):
        settings("sclip[vocabulary=no/first]")


def test_probabilities_of_classes_by_hand() -> None:
    scaled, classes = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 1, 1])
    e = np.exp([1.0, 0.0, 0.5]) / np.exp([1.0, 0.0, 0.5]).sum()
    assert of_classes(scaled, classes, "max").tolist() == pytest.approx([e[0], e[2]])
    assert of_classes(scaled, classes, "sum").tolist() == pytest.approx([e[0], e[1] + e[2]])
    second = np.log(np.exp(0) + np.exp(TAU * 0.5)) / TAU
    joint = np.exp([1.0, second]) / np.exp([1.0, second]).sum()
    assert of_classes(scaled, classes, "logsumexp").tolist() == pytest.approx(list(joint))


@pytest.mark.parametrize("aggregate", ["max", "sum", "logsumexp"])
def test_winners_and_bins_are_those_of_the_definition(aggregate: str) -> None:
    torch.manual_seed(0)
    scores, classes = 0.1 * torch.randn(6, 9, 11), torch.tensor([0, 1, 1, 2, 2, 2])
    size, scale = (30, 40), 50.0
    large = torch.nn.functional.interpolate(scores[None], size, mode="bilinear")[0]
    expected = of_classes(scale * large, classes, aggregate)  # type: ignore[arg-type]
    found = classify(scores, size, classes, scale, aggregate)  # type: ignore[arg-type]
    assert np.abs(found.probability - expected.amax(0).numpy()).max() < 1e-5
    clear = (expected.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-5).numpy()
    assert np.array_equal(found.classes[clear], expected.argmax(0).numpy()[clear])
    binned = classify_binned(scores, size, classes, scale, aggregate)  # type: ignore[arg-type]
    assert np.abs(binned[1] - np.floor(100 * found.probability)).max() <= 1


def test_one_word_a_class_makes_sum_and_max_one() -> None:
    torch.manual_seed(1)
    scores, classes = torch.randn(3, 8, 8), torch.arange(3)
    one, other = (classify(scores, (8, 8), classes, 5.0, how) for how in ("max", "sum"))  # type: ignore[arg-type]
    assert np.array_equal(one.classes, other.classes) and np.abs(one.probability - other.probability).max() < 1e-5


def test_templates_fill_in_the_word() -> None:
    one, two = filled(["a photo of a {}.", "{}"])
    assert (one("tree"), two("tree")) == ("a photo of a tree.", "tree")


def test_rows_with_them_are_counted_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["run", "--demo", "--datasets", "loveda", "--methods", "clip", "--results", str(tmp_path)]
    assert main([*where, "--sweep", "aggregate=max,sum", "-o", "templates=photo"]) == 0, capsys.readouterr().err
    assert main([*where, "--protocol", "cvpr2025,coninfer"]) == 0, capsys.readouterr().err
    store = Store(tmp_path, demo=True)
    rows = {cell.row: cell for cell in store.cells()}
    assert set(rows) == {
        "clip",
        "clip[protocol=coninfer]",
        "clip[templates=photo,aggregate=max]",
        "clip[templates=photo,aggregate=sum]",
    }
    counts = {row: cell.histogram().tobytes() for row, cell in rows.items()}
    assert len(set(counts.values())) == 4
    assert "templates" in rows["clip[templates=photo,aggregate=max]"].record.inputs
    assert "templates" not in rows["clip"].record.inputs
    capsys.readouterr()
    for wrong, said in (
        (["--protocol", "coninfr"], "--protocol: unknown protocol 'coninfr'; did you mean coninfer"),
        (["-o", "templates=fotos"], "unknown templates 'fotos'"),
        (["-o", "aggregate=mean"], "aggregate"),
    ):
        assert main([*where, *wrong]) == 2
        assert said in capsys.readouterr().err
