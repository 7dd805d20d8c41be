"""Named protocols, templates, and how the words of a class make its score."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from project import Project

from bench.cli import main
from bench.config import load_config
from bench.data.cards import load_card
from bench.errors import BenchError
from bench.inference.postprocess import classify, classify_binned, of_classes
from bench.models.text import filled
from bench.report.frames import tables
from bench.settings import IGNORED, Aggregate, Join, Overrides
from bench.spec import RunSpec
from bench.store.record import identity
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
        CONFIG.words(load_card("loveda"), "vip")


def test_each_layer_wins_over_those_before_it(tmp_path: Path) -> None:
    """`protocol:`, card, method, named protocol, that protocol on the dataset, row, brackets."""
    overlay = tmp_path / "mine.yaml"
    of_dataset = {"templates": "photo", "window": 96, "background": 1, "options": {"b": 3, "c": 3}, "threshold": 0.3}
    mine = {"tau": 2, "templates": "none", "stride": 32, "options": {"a": 2, "b": 2}, "models": {"vfm": "dino-vits8"}}
    content = {
        "protocols": {"mine": {**mine, "datasets": {"cityscapes": of_dataset}, "thresholds": {"isaid": 0.2}}},
        "rows": {"one": {"method": "sclip", "protocol": "mine", "options": {"c": 4, "d": 4}, "window": 112}},
    }
    overlay.write_text(yaml.safe_dump(content))
    config = load_config(overlay)
    method = Overrides(debias=0.3, scale=10, templates="eurosat", models={"vfm": "sam-vitb", "other": "sam-vitb"})
    card = load_card("cityscapes")
    found = config.settings_of("one[scale=20,d=5,background=none]", card, method)
    assert card.geometry and found.resize == card.geometry.resize != config.protocol.resize  # the card's
    assert (found.debias, found.tau, found.stride) == (0.3, 2, 32)  # the method's, and the named protocol's
    assert (found.templates, found.threshold) == ("photo", 0.3)  # of the named protocol on this dataset
    assert (found.window, found.scale, found.background) == (112, 20, IGNORED)  # the row's, and of its brackets
    assert found.options == {"a": 2, "b": 3, "c": 4, "d": 5}  # one by one
    assert found.models == {"vfm": "dino-vits8", "other": "sam-vitb"}
    other = config.settings_of("one", load_card("isaid"), method)
    assert (other.templates, other.threshold, other.background, other.options["c"]) == ("none", 0.2, 0, 4)
    with pytest.raises(BenchError, match="background 19: dataset cityscapes has 19 classes, numbered from 0; give"):
        config.settings_of("one[background=19]", card, method)


def test_vip_has_its_own_settings_on_each_dataset() -> None:
    """words.yaml, from its released configurations."""
    taus = {"potsdam": 1, "vaihingen": 1, "vdd": 1, "isaid": 4, "cityscapes": 2, "pascal_context59": 2}
    for dataset, tau in {**taus, "coco_stuff164k": 5}.items():
        found = settings("sclip[protocol=vip]", dataset)
        natural = dataset in ("cityscapes", "pascal_context59", "coco_stuff164k")
        assert (found.tau, found.window, found.stride) == (tau, 336, 112)
        assert found.background == (IGNORED if natural else load_card(dataset).background)
        assert (found.resize.short_side is not None) == natural
    assert settings("sclip[protocol=vip]", "cityscapes").resize.short_side == 560
    assert settings("sclip[protocol=vip]", "pascal_context59").resize.short_side == 336


def test_settings_of_today_keep_the_identity_of_stored_results() -> None:
    """A result from before there was τ, or a setting for each dataset, is the same one."""
    known = {
        ("clip", "potsdam"): "4e55c37827cf486e8e7e5bc63484380281a45466c3aad10ba6cbe384f6b7f261",
        ("sclip[aggregate=logsumexp]", "isaid"): "79a013ec5a31738aa54c6af218849f8256d2fa15565e103a923107b22aebb69c",
    }
    for (row, dataset), expected in known.items():
        assert identity(settings(row, dataset), {"weights": "w"}) == expected
    one, other = (settings(f"sclip[aggregate=logsumexp,tau={tau}]") for tau in (1, 2))
    assert identity(one, {}) != identity(other, {})
    below = settings("sclip[background=none]")
    assert identity(below, {}) == identity(settings("sclip"), {})  # it is applied to stored counts


def test_every_shipped_protocol_fits_the_datasets_that_it_has_thresholds_for() -> None:
    for name, protocol in CONFIG.protocols.items():
        for dataset in {*protocol.thresholds, *protocol.datasets}:
            found = settings(f"sclip[protocol={name}]", dataset)
            assert found.threshold == protocol.on(dataset).threshold
            assert CONFIG.words(load_card(dataset), found.vocabulary)
        assert protocol.source or protocol.vocabulary in ("plain",)


def test_the_first_word_of_each_class_alone() -> None:
    card = load_card("openearthmap")
    assert [list(words) for words in CONFIG.words(card, "cvpr2025/first")] == [
        [words[0]] for words in card.vocabularies["cvpr2025"]
    ]
    with pytest.raises(BenchError, match="has no vocabulary 'no'"):
        CONFIG.words(card, "no/first")


def test_probabilities_of_classes_by_hand() -> None:
    scaled, classes = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0, 1, 1])
    e = np.exp([1.0, 0.0, 0.5]) / np.exp([1.0, 0.0, 0.5]).sum()
    assert of_classes(scaled, classes, Join("max")).tolist() == pytest.approx([e[0], e[2]])
    assert of_classes(scaled, classes, Join("sum")).tolist() == pytest.approx([e[0], e[1] + e[2]])
    for tau in (1.0, 4.0):
        second = np.log(np.exp(0) + np.exp(tau * 0.5)) / tau
        joint = np.exp([1.0, second]) / np.exp([1.0, second]).sum()
        assert of_classes(scaled, classes, Join("logsumexp", tau)).tolist() == pytest.approx(list(joint))


@pytest.mark.parametrize("aggregate", ["max", "sum", "logsumexp"])
def test_winners_and_bins_are_those_of_the_definition(aggregate: Aggregate) -> None:
    torch.manual_seed(0)
    scores, classes = 0.1 * torch.randn(6, 9, 11), torch.tensor([0, 1, 1, 2, 2, 2])
    size, scale = (30, 40), 50.0
    large = torch.nn.functional.interpolate(scores[None], size, mode="bilinear")[0]
    expected = of_classes(scale * large, classes, Join(aggregate))
    found = classify(scores, size, classes, scale, Join(aggregate))
    assert np.abs(found.probability - expected.amax(0).numpy()).max() < 1e-5
    clear = (expected.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-5).numpy()
    assert np.array_equal(found.classes[clear], expected.argmax(0).numpy()[clear])
    binned = classify_binned(scores, size, classes, scale, Join(aggregate))
    assert np.abs(binned[1] - np.floor(100 * found.probability)).max() <= 1


def test_one_word_a_class_makes_sum_and_max_one() -> None:
    torch.manual_seed(1)
    scores, classes = torch.randn(3, 8, 8), torch.arange(3)
    one, other = (classify(scores, (8, 8), classes, 5.0, Join(how)) for how in ("max", "sum"))
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


def test_a_dataset_that_a_protocol_lacks_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    content = yaml.safe_load(project.config.read_text())
    words = [[name] for name in load_card("loveda").classes]
    content["protocols"]["half"] = {"vocabulary": "half", "threshold": 0.5, "background": "none"}
    content["vocabularies"] = {"half": {"loveda": words}}
    project.config.write_text(yaml.safe_dump(content))
    flags = ["--methods", "clip", "--datasets", "loveda,whu_aerial", "--protocol", "cvpr2025,half"]
    assert project.run(*flags, "--dry-run") == 0 and project.run(*flags, "--dry-run", "--strict") == 1
    assert project.run(*flags) == 0, capsys.readouterr().err
    assert project.run(*flags, "--strict") == 1
    assert "bench: clip[protocol=half] on whu_aerial: dataset whu_aerial has no vocabulary" in capsys.readouterr().err
    cells = {(cell.row, cell.dataset): cell for cell in Store(tmp_path / "results").cells()}
    gap = cells.pop(("clip[protocol=half]", "whu_aerial"))
    assert gap.status == "no data" and "dataset whu_aerial has no vocabulary 'half'" in str(gap.reason)
    assert len(cells) == 3 and not any(cell.reason for cell in cells.values() if cell.status == "ok")
    unsure = cells["clip[protocol=half]", "loveda"]
    assert unsure.confusion().shape[1:] == (8, 8) and unsure.confusion()[..., 7].sum() > 0
    capsys.readouterr()
    assert project.run("--methods", "clip[vocabulary=hlaf]", "--datasets", "loveda,whu_aerial") == 2
    assert "row 'clip[vocabulary=hlaf]': dataset loveda has no vocabulary 'hlaf'" in capsys.readouterr().err
    assert project.run("--methods", "clip[protocol=half]", "--datasets", "whu_aerial") == 2  # nothing is left to do
    assert "dataset whu_aerial has no vocabulary 'half'" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["datasets", "thresholds"])
def test_a_dataset_that_a_protocol_misspells_is_named(tmp_path: Path, key: str) -> None:
    overlay = tmp_path / "mine.yaml"
    of_dataset = {"loveda2": 0.2 if key == "thresholds" else {"tau": 2}}
    overlay.write_text(yaml.safe_dump({"protocols": {"mine": {key: of_dataset}}}))
    message = f"{overlay}: protocols.mine.{key}: no dataset 'loveda2'; did you mean loveda"
    for asked in (lambda: RunSpec(config=overlay), lambda: tables(tmp_path, config=overlay)):
        with pytest.raises(BenchError, match=re.escape(message)):
            asked()
