"""Cards: the shipped ones, the form they must have, and what is said when they do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from bench.cli import main
from bench.config import load_config
from bench.data.cards import card_names, card_schema, load_card
from bench.data.citations import bibtex
from bench.data.patterns import fill, parse
from bench.errors import BenchError
from bench.paths import shipped

ROOT = Path(__file__).resolve().parents[2]
NATURAL = {"pascal_context59", "coco_stuff164k", "cityscapes"}
THRESHOLDS = {
    "openearthmap": 0.1, "loveda": 0.3, "isaid": 0.4, "potsdam": 0.1, "vaihingen": 0.1, "uavid": 0.3,
    "udd5": 0.4, "vdd": 0.3, "whu_aerial": 0.6, "whu_sat_ii": 0.7, "inria": 0.6, "xbd_pre": 0.0,
    "chn6_cug": 0.8, "deepglobe_road": 0.7, "massachusetts_road": 0.7, "spacenet_road": 0.7, "wbs_si": 0.6,
}  # fmt: skip
REMOTE_SENSING = set(THRESHOLDS)
LATER = {
    "dlrsd": 0.0, "floodnet": 0.0, "floodnet_gsnet": 0.0, "floodnet_ovrs_sam3": 0.0, "floodnet_mess": 0.0,
    "flair1": 0.0, "gf7_building": 0.5, "gid5": 0.0, "deepglobe_landcover": 0.0, "fast_samrs": 0.0,
    "gf_low_grade_road": 0.3, "worldfloods": 0.0, "gid15": 0.0,
}  # fmt: skip


@pytest.fixture
def content():
    """A small valid card as a mapping."""
    return {
        "name": "mine", "title": "Mine", "task": "semantic", "modality": "UAV", "licence": "none",
        "access": "open", "obtain": "ScoreRequest me.", "folders": ["Mine"], "classes": ["a", "b", "c"],
        "vocabularies": {"cvpr2025": [["a"], ["b"], ["c", "sea"]]}, "id": "{n}", "example": {"n": "1"},
        "split_note": "all",
        "layouts": {"original": {"about": "as it is", "image": "image/{n}.png", "label": "label/{n}.png"}},
    }  # fmt: skip


def load(content, folder: Path, name: str = "mine"):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return load_card(name, [folder])


def test_there_are_the_papers_cards_and_later_ones():
    assert set(card_names()) == REMOTE_SENSING | NATURAL | set(LATER)
    config = load_config()
    assert set(config.default_datasets) == REMOTE_SENSING
    assert config.dataset_groups["everything"] == (*config.default_datasets, *config.dataset_groups["more"])
    comparable = {name for name in LATER if any(one.comparable for one in load_card(name).layouts.values())}
    assert comparable == {*config.dataset_groups["more"], "floodnet_gsnet", "floodnet_ovrs_sam3"}


@pytest.mark.parametrize("name", sorted(REMOTE_SENSING | NATURAL | set(LATER)))
def test_shipped_card(name):
    card = load_card(name)
    assert len(card.colours) == len(card.classes)
    said = {"title", "task", "modality", "licence", "access", "obtain", "sources", "folders", "example", "split_note"}
    assert said <= card.model_fields_set and card.access != "private"
    assert (card.metric == "foreground_iou") == (len(card.classes) == 2)
    for layout in card.layouts.values():
        split = layout.split or card.split
        if split:
            parsed = [parse(split.key, name, card.fields) for name in split.names]
            assert all(parsed)
            assert [fill(split.key, fields) for fields in parsed] == list(split.names)
    if name not in NATURAL:
        assert card.threshold == {**THRESHOLDS, **LATER}[name]
        assert card.overrides() == {}
    else:
        assert card.overrides()["resize"] == {"short_side": 448, "long_max": 2048, "long_side": None}


def cvpr(card):
    return card.vocabularies["cvpr2025"]


def test_facts_that_decide_numbers():
    cards = {name: load_card(name) for name in card_names()}
    assert {name for name, card in cards.items() if card.debias is not None} == {"xbd_pre"}
    assert cards["xbd_pre"].debias == 0
    backgrounds = {name: card.background for name, card in cards.items() if card.background}
    assert backgrounds == {"potsdam": 5, "vaihingen": 5, "udd5": 4}
    other = {name for name, card in cards.items() if card.vocabularies.get("ov2", cvpr(card)) != cvpr(card)}
    assert other == {"potsdam", "vaihingen"}
    assert cards["potsdam"].vocabularies["cvpr2025"][0] == ("road", "parking lot")
    assert cards["vaihingen"].vocabularies["ov2"][2] == ("grass",)
    assert [len(cards[name].classes) for name in ("isaid", "coco_stuff164k", "cityscapes")] == [16, 171, 19]
    lists = {"openearthmap": 384, "wbs_si": 499, "pascal_context59": 5104}
    assert {name: len(cards[name].split.names) for name in lists} == lists
    official = [cards[name].layouts["official"].split for name in ("deepglobe_road", "spacenet_road")]
    assert [len(split.names) for split in official] == [1530, 567]


def test_lists_hold_what_their_sources_counted():
    cities = [name.split("_")[2] for name in load_card("spacenet_road").layouts["official"].split.names]
    counted = {city: cities.count(city) for city in set(cities)}
    assert counted == {"Vegas": 196, "Paris": 59, "Shanghai": 241, "Khartoum": 71}
    regions = {name.rpartition("_")[0] for name in load_card("openearthmap").split.names}
    assert len(regions) == 75


def test_default_colours_are_those_of_pascal_voc(content, tmp_path):
    assert load(content, tmp_path).colours == ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def test_the_schema_accepts_every_shipped_card():
    schema = card_schema()
    validator = jsonschema.Draft202012Validator(schema)
    for file in shipped("datasets").glob("*.yaml"):
        validator.validate(yaml.safe_load(file.read_text()))
    assert json.loads(json.dumps(schema)) == schema


def test_the_schema_refuses_unknown_keys(content):
    with pytest.raises(jsonschema.ValidationError, match="treshold"):
        jsonschema.validate({**content, "treshold": 0.1}, card_schema())


def test_names_and_aliases():
    assert load_card("OEM").name == load_card("OpenEarthMap").name == "openearthmap"
    assert load_card("whu-sat-ii").name == load_card("whu-s2").name == "whu_sat_ii"
    with pytest.raises(BenchError, match="unknown dataset 'lovda'; did you mean loveda"):
        load_card("lovda")


def test_cards_in_folders_of_the_user(content, tmp_path):
    assert load(content, tmp_path).title == "Mine"
    assert "mine" in card_names([tmp_path])
    with pytest.raises(BenchError, match=r"two cards are called .loveda.: .*loveda\.yaml; rename one"):
        load({**content, "name": "loveda"}, tmp_path, "loveda")
    with pytest.raises(BenchError, match="no such folder of dataset cards"):
        card_names([tmp_path / "gone"])


def test_split_files_are_found_beside_the_card(content, tmp_path):
    (tmp_path / "names.txt").write_text("1\n2\n")
    content["split"] = {"key": "{n}", "file": "names.txt"}
    card = load(content, tmp_path)
    assert card.split.names == ("1", "2")
    (tmp_path / "names.txt").write_text("1\n")
    assert load(content, tmp_path).split.names == ("1",)
    (tmp_path / "names.txt").unlink()
    with pytest.raises(BenchError, match=r"mine\.yaml: split\.file: .*names\.txt: cannot be read"):
        load(content, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treshold": 0.1}, "unknown key 'treshold'; did you mean threshold"),
        ({"title": None}, "title: .*string.*value None"),
        ({"threshold": 1.5}, r"threshold: .*less than 1 \(value 1.5\)"),
        ({"threshold": 0.125}, "threshold: counts are kept in steps of 0.01"),
        ({"background": 3}, r"background 3 is no class number \(0 to 2\)"),
        ({"classes": ["a", "b"]}, "cvpr2025 has 3 entries for 2 classes"),
        ({"palette": [[0, 0, 0]]}, "palette has 1 entries for 3 classes"),
        ({"palette": [[0, 0, 300]] * 3}, r"palette\.0\.2: .*less than or equal to 255"),
        ({"vocabularies": {"other": [["a"], ["b"], ["c"]]}}, "vocabularies lacks 'cvpr2025'"),
        ({"vocabularies": {"cvpr2025": [["a"], ["b"], []]}}, "cvpr2025 has no words for c; only the background may"),
        ({"vocabularies": {"cvpr2025": [["a\nb"], ["b"], ["c"]]}}, r"0\.0: .*'a\\nb' holds a line break"),
        ({"classes": ["a", "b\x07", "c"]}, r"classes\.1: .*'b\\x07' holds .* a control character"),
        ({"uncounted": ["d"], "metric": "miou_labelled"}, "uncounted: no class 'd'"),
        ({"uncounted": ["a"]}, "uncounted needs metric miou_labelled"),
        ({"metric": "foreground_iou"}, "foreground_iou needs two classes"),
        ({"task": "flood"}, r"task: .*'semantic', 'building', 'road' or 'water' \(value 'flood'\)"),
        ({"scene": "(a"}, "scene: not a regular expression"),
        ({"fields": {"n": "["}}, "n: not a regular expression"),
        ({"id": "{number}"}, r"layouts\.original\.image lacks {number}, which '{number}' needs"),
        ({"split": {"key": "{n}"}}, "split: .*the split names no sample; give `names` or `file`"),
        ({"split": {"key": "{n}", "names": ["1", "1"]}}, "names a sample twice"),
        (
            {"tiling": {"width": 8, "height": 4, "overlap": 4}},
            "tiling: .*overlap must be smaller than the tile",
        ),
        ({"name": "yours"}, "name is 'yours'; it must be the file's, 'mine'"),
        ({"classes": [f"c{n}" for n in range(256)]}, "256 classes; labels are 8-bit"),
        ({"layouts": {}}, "layouts: .*at least 1"),
    ],
)
def test_impossible_values_are_named(content, tmp_path, change, message):
    with pytest.raises(BenchError, match=rf"mine\.yaml: .*{message}"):
        load({**content, **change}, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lable": "x"}, r"layouts\.original: unknown key 'lable'; did you mean label"),
        ({"label": "{m}.png"}, r"layouts\.original: .*label has {m}, which the pattern of the image lacks"),
        (
            {"labels": {"rule": "colour"}},
            r"layouts\.original\.labels: .*'index', 'palette', 'threshold', 'lines'",
        ),
        ({"labels": {"rule": "index", "reduce": True}}, "unknown key 'reduce'; did you mean reduce_zero"),
        ({"labels": {"rule": "index", "raw_ids": [1]}}, "raw_ids: 1 values, 3 classes"),
        ({"cut": True}, "layouts.original says cut, but the card has no tiling"),
    ],
)
def test_impossible_layouts_are_named(content, tmp_path, change, message):
    content["layouts"]["original"].update(change)
    with pytest.raises(BenchError, match=rf"mine\.yaml: .*{message}"):
        load(content, tmp_path)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- a", "a card is a mapping")])
def test_files_that_are_no_cards(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BenchError, match=rf"mine\.yaml: {message}"):
        load_card("mine", [tmp_path])


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_folder_of_cards_does_not_shadow_hugging_face():
    code = "import sys, datasets, bench.data.cards; print(datasets.load_dataset.__module__, datasets.__file__)"
    module, file = run_python(code).split()
    assert module == "datasets.load"
    assert ROOT / "datasets" not in Path(file).parents
    assert not list((ROOT / "datasets").rglob("*.py"))


def test_cards_are_read_without_the_heavy_libraries():
    heavy = "{'torch', 'cv2', 'pandas', 'datasets', 'numpy', 'PIL'}"
    code = f"import sys, bench.data.cards as c; c.load_card('isaid'); print({heavy} & set(sys.modules))"
    assert run_python(code) == "set()"


def test_citations_become_bibtex():
    cards = [load_card(name) for name in card_names()]
    text = bibtex(cards)
    cited = {part for card in cards if card.citation for part in card.citation.split("; ")}
    assert text.count("@misc{") == len({part.removeprefix("validation set: ") for part in cited}) + sum(
        card.citation is None for card in cards
    )
    keys = re.findall(r"@misc{(.*),", text)
    assert len(set(keys)) == len(keys) and "note" not in text
    assert r"title = {{FLAIR \#1: " in text and "isprsannals" in text
    assert "  doi = {10.1007/978-3-030-03398-9_30},\n" in text  # an address
    (loveda,) = [entry for entry in text.split("\n@") if "wang2021loveda" in entry]
    assert loveda.splitlines()[1:] == [
        "  author = {Wang and others},",
        "  title = {{LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic Segmentation}},",
        "  howpublished = {NeurIPS Datasets and Benchmarks 2021},",
        "  year = {2021},",
        "  eprint = {2110.08733},",
        "  archiveprefix = {arXiv},",
        "}",
    ]


def test_what_is_no_citation_stays_a_note(content, tmp_path):
    assert bibtex([load({**content, "citation": "see our web page"}, tmp_path)]).splitlines() == [
        "@misc{mine,",
        "  key = {mine},",
        "  title = {Mine},",
        "  note = {see our web page},",
        "}",
    ]


def test_cite_prints_what_results_hold(tmp_path, capsys):
    assert main(["datasets", "cite", "potsdam", "vaihingen"]) == 0
    assert capsys.readouterr().out.count("@misc{rottensteiner2012the") == 1
    assert main(["datasets", "cite", "--results", str(tmp_path / "none")]) == 2
    assert "holds no results" in capsys.readouterr().err
