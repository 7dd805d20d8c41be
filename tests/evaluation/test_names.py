"""Rows with brackets, sweeps, overlays and words of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from project import Project

from bench.config import load_config
from bench.data.cards import card_names, load_card
from bench.data.vocabularies import read_vocabulary, shared_vocabularies
from bench.errors import BenchError, listed
from bench.settings import Overrides
from bench.spec import RunSpec
from bench.store.store import Store
from bench.store.writer import ResultWriter

pytestmark = pytest.mark.usefixtures("any_count")


def test_commas_in_brackets_do_not_separate_names() -> None:
    assert listed("a[x=1,y=2], b ,c[z=3]", "--methods") == ["a[x=1,y=2]", "b", "c[z=3]"]


def rows(methods: str, **options: object) -> list[str]:
    return list(RunSpec(methods=methods, datasets="loveda", **options).rows)


def test_rows_for_every_combination() -> None:
    assert rows("clip") == ["clip"]
    assert rows("clip,gem[blocks=2]", options=["scale=40"], sweeps=["debias=0,0.1"]) == [
        "clip[scale=40,debias=0]",
        "clip[scale=40,debias=0.1]",
        "gem[blocks=2,scale=40,debias=0]",
        "gem[blocks=2,scale=40,debias=0.1]",
    ]
    assert rows("clip", vocabularies="cvpr2025,plain") == ["clip", "clip[vocabulary=plain]"]
    assert rows("clip", protocols=["vip", "cvpr2025"]) == ["clip[protocol=vip]", "clip"]
    for wrong in ("scale", "=1", "scale="):
        with pytest.raises(BenchError, match="KEY=VALUE is needed"):
            rows("clip", options=[wrong])


def test_a_row_is_the_one_that_its_name_spells() -> None:
    """A cell is called by the name, and the name typed later stands for the same row."""
    spec = RunSpec(
        methods="gem[blocks=2]", datasets="loveda", options=["scale=40", "long_side=64"], vocabularies="plain"
    )
    ((name, row),) = spec.rows.items()
    assert name == "gem[blocks=2,scale=40,long_side=64,vocabulary=plain]" and row == load_config().row(name)
    assert (row.options, row.scale, row.vocabulary) == ({"blocks": 2}, 40, "plain")


def test_brackets_set_what_they_say() -> None:
    config, card = load_config(), load_card("loveda")
    settings = config.settings_of("sclip+ours[debias=0.1,long_side=896,threshold=0,residual=keep]", card, Overrides())
    assert (settings.debias, settings.resize.long_side, settings.threshold) == (0.1, 896, 0.0)
    assert (settings.upsampler, settings.options) == ("simfeatup", {"residual": "keep"})
    assert config.row("sclip[debias=0.1]").title("SCLIP") == "SCLIP [debias=0.1]"
    for wrong, message in {"clip[window=wide]": "window: .*value 'wide'", "clip[x]": "'x' is not KEY=VALUE"}.items():
        with pytest.raises(BenchError, match=message):
            config.row(wrong)


def test_a_configuration_is_laid_over_the_shipped_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("rows:\n  mine: {method: naclip, options: {sigma: 1}}\nprotocol: {scale: 40}\n")
    config = load_config(file)
    assert config.row("mine").options == {"sigma": 1} and config.protocol.scale == 40
    assert config.protocol.window == 224 and "sclip" in config.rows and config.tables == load_config().tables
    file.write_text("rows:\n  mine: {methd: naclip}\n")
    with pytest.raises(BenchError, match=r"mine\.yaml: unknown key 'rows\.mine\.methd'"):
        load_config(file)


def test_shared_vocabularies_fit_their_cards() -> None:
    assert {one.name for one in shared_vocabularies()} == {"plain", "ov2", "ov3", "coninfer", "vip", "procsam3"}
    for vocabulary in shared_vocabularies():
        assert vocabulary.source and vocabulary.about
        for dataset in vocabulary.words:
            assert dataset in card_names()
            assert vocabulary.name in load_card(dataset).vocabularies  # which has validated the number of classes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("words: {loveda: [[a], []]}", r"words\.loveda\.1"),
        ("wrds: {}", "unknown key 'wrds'; did you mean words"),
        ("words: [", "not valid YAML"),
    ],
)
def test_bad_vocabularies_are_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "v.yaml"
    file.write_text(content)
    with pytest.raises(BenchError, match=rf"v\.yaml: .*{message}"):
        read_vocabulary(file)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_vocabularies_make_rows(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    file = project.root / "mine.yaml"
    file.write_text(yaml.safe_dump({"words": {"loveda": [[f"word {number}"] for number in range(7)]}}))
    flags = ["--datasets", "loveda", "--methods", "clip", "--vocabulary", f"cvpr2025,plain,{file}"]
    assert project.run(*flags) == 0
    store = Store(project.root / "results")
    cells = {row: store.cell(row, "loveda") for row in ("clip", "clip[vocabulary=plain]", "clip[vocabulary=mine]")}
    assert all(cell.status == "ok" for cell in cells.values())
    assert len({cell.record.inputs["vocabulary"] for cell in cells.values()}) == 3
    assert "clip[vocabulary=mine]" in capsys.readouterr().out
    file.write_text(yaml.safe_dump({"words": {"loveda": [["a"], ["b"]]}}))
    assert project.run(*flags) == 2
    assert "words.loveda has 2 lists for 7 classes" in capsys.readouterr().err


def test_a_swept_threshold_is_counted_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    take = ResultWriter.take
    monkeypatch.setattr(ResultWriter, "take", lambda writer, image: (counted.append(image.index), take(writer, image)))
    flags = ("--datasets", "loveda", "--methods", "clip", "--sweep", "threshold=0,0.3,0.5")
    assert project.run(*flags) == 0
    assert len(counted) == 3  # images, not images times thresholds
    store = Store(project.root / "results")
    rows = [store.cell(f"clip[threshold={value}]", "loveda") for value in ("0", "0.3", "0.5")]
    assert [row.settings.threshold for row in rows] == [0.0, 0.3, 0.5] and all(row.status == "ok" for row in rows)
    assert rows[0].table.equals(rows[2].table)
    assert project.run("--datasets", "loveda", "--methods", "clip[threshold=0.7]") == 0
    assert len(counted) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ""}, "--methods '': names nothing"),
        ({"methods": ","}, "--methods ',': names nothing"),
        ({"datasets": " "}, "--datasets ' ': names nothing"),
        ({"methods": "clip[debias=0,debias=1]"}, "'debias' stands twice"),
        ({"methods": "clip[long_side=64,short_side=64]"}, "'short_side' stands twice"),
        ({"methods": "clip", "options": ["debias=0"], "sweeps": ["debias=0.1,0.2"]}, "'debias' stands twice"),
        ({"methods": "clip", "sweeps": ["debias=0.1,0.10"]}, "are the same row; give each value once"),
        (
            {"methods": "clip", "sweeps": [f"{key}={','.join(map(str, range(1, 41)))}" for key in ("debias", "scale")]},
            "1,600 rows; at most 1,000",
        ),
        ({"methods": "clip", "workers": -1}, "--workers -1: "),
    ],
)
def test_what_a_command_cannot_mean_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        RunSpec(**{"datasets": "loveda", **options})


def test_one_dataset_by_three_names_is_one() -> None:
    spec = RunSpec(methods="clip", datasets="wbs_si,wbs-si,WBS_SI")
    assert [card.name for card in spec.dataset_cards] == ["wbs_si"]
