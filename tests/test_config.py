from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.config import load_config
from bench.data.cards import load_card
from bench.errors import BenchError
from bench.notebook import load_segmenter, run
from bench.paths import shipped
from bench.settings import PROBABILITIES, WHOLE, Overrides, ResizeRule

OURS = Overrides(upsampler="simfeatup", debias=0.3)


def _changed(tmp_path: Path, **changes: object) -> Path:
    content = yaml.safe_load(shipped("benchmark.yaml").read_text()) | changes
    file = tmp_path / "benchmark.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_the_shipped_file_is_the_papers_protocol() -> None:
    config = load_config()
    protocol = config.protocol
    assert (protocol.resize.long_side, protocol.window, protocol.stride, protocol.scale) == (448, 224, 112, 50)
    assert len(config.default_rows) == 10
    assert len(config.default_datasets) == 17
    assert {name for name in config.tables if name.isdigit()} == {"1", "2", "3", "4", "5", "6"}
    for table in config.tables.values():
        for column in table.columns:
            load_card(column)


def test_rows_are_spelled_from_methods_modifiers_and_backbones() -> None:
    config = load_config()
    assert config.row("naclip").method == "naclip"
    ours = config.row("{method}+ours")
    assert (ours.upsampler, ours.debias, ours.label) == ("simfeatup", 0.3, "{method}+ours")
    assert config.row("sclip@remoteclip-vit-b32").backbone == "remoteclip-vit-b32"
    both = config.row("clip+debias+simfeatup@clip-vit-l14")
    assert (both.debias, both.upsampler, both.backbone) == (0.3, "simfeatup", "clip-vit-l14")


def test_later_overrides_win() -> None:
    config = load_config()
    potsdam, xbd = load_card("potsdam"), load_card("xbd_pre")
    cell = config.settings_of("segearth-ov", potsdam, OURS)
    assert (cell.upsampler, cell.debias, cell.threshold, cell.background) == ("simfeatup", 0.3, 0.1, 5)
    baseline = config.settings_of("msa", potsdam, OURS)
    assert (baseline.upsampler, baseline.debias) == ("none", 0.0)
    assert config.settings_of("segearth-ov", xbd, OURS).debias == 0.0  # the card's override, as released
    assert config.settings_of("segearth-ov-896", potsdam, OURS).resize == ResizeRule(long_side=896)
    assert config.settings_of("clip", load_card("pascal_context59"), Overrides()).resize.short_side == 448


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocl": {}}, "unknown key 'protocl'"),
        ({"rows": {"clip": {"method": "clip", "window": "wide"}}}, r"rows\.clip\.window: .*\(value 'wide'\)"),
        ({"rows": {"clip": {"method": "clip", "debais": 1}}}, r"unknown key 'rows\.clip\.debais'"),
        ({"default_rows": ["nobody"]}, "default_rows names the row 'nobody'"),
        ({"modifiers": {"ours": {"upsampler": "simfetup"}}}, r"ours\.upsampler 'simfetup' is not in"),
        ({"models": {"x": {"library": "tower", "name": "nope"}}}, r"models\.x\.name 'nope' is not in `backbones:`"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(BenchError, match=message) as error:
        load_config(_changed(tmp_path, **change))
    assert "benchmark.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("rows: [")
    with pytest.raises(BenchError, match=r"broken\.yaml: not valid YAML"):
        load_config(broken)


def test_unknown_vocabulary_names_those_of_the_card(tmp_path: Path) -> None:
    file = _changed(tmp_path)
    content = yaml.safe_load(file.read_text())
    content["rows"]["clip"]["vocabulary"] = "ov4"
    file.write_text(yaml.safe_dump(content))
    config, potsdam = load_config(file), load_card("potsdam")
    vocabulary = config.settings_of("clip", potsdam, Overrides()).vocabulary
    with pytest.raises(BenchError, match="dataset potsdam has no vocabulary 'ov4'; did you mean"):
        config.words(potsdam, vocabulary)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {own: {method: clip, threshold: 0.123}}", r"rows\.own\.threshold: counts are kept in steps of 0\.01"),
        ("rows: {own: {method: clip, threshold: 1}}", r"rows\.own\.threshold: .*less than 1"),
        ("rows: {own: {method: clip, debias: .nan}}", r"rows\.own\.debias: .*finite"),
        ("rows: {own: {method: clip, debias: -5}}", r"rows\.own\.debias: .*greater than or equal to 0"),
        ("rows: {own: {method: clip, scale: .inf}}", r"rows\.own\.scale: .*finite"),
        ("rows: {own: {method: clip, options: {x: .nan}}}", r"rows\.own\.options: 'x': .*nan is not"),
        ("rows: {own: {method: clip, options: {x: 2020-01-01}}}", r"rows\.own\.options: 'x': "),
        ("rows: {own: {method: clip, window: 100000000}}", r"rows\.own\.window: .*32768"),
        ("rows: {own: {method: clip}, own: {method: sclip}}", "'own' stands twice, line 1"),
        ("vocabularies: {v: {loveda: [[], [a]]}}", r"vocabularies\.v\.loveda\.0: .*at least 1"),
        ("vocabularies: {v: {loveda: [[' '], [a]]}}", r"vocabularies\.v\.loveda\.0\.0: "),
    ],
)
def test_what_could_not_be_counted_or_stored_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(BenchError, match=rf"own\.yaml: .*{message}"):
        load_config(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip@", "unknown backbone '@'"),
        ("clip+", r"unknown modifier '\+'"),
        ("clip+ours+ours", "a modifier stands twice"),
        ("clip[threshold=0.123]", "threshold: counts are kept in steps of 0.01"),
        ("clip[threshold=.nan]", "threshold: "),
        ("clip[long_side=100000000]", r"resize\.long_side: .*32768"),
        ("clip[long_side=1e8]", r"resize\.long_side: "),
        ("clip[threshold={]", "threshold: not valid YAML"),
        ("clip[threshold=!!python/object/apply:os.getcwd []]", "threshold: not valid YAML"),
    ],
)
def test_mistakes_in_a_rows_name_are_one_line(name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message) as error:
        load_config().row(name)
    assert "\n" not in str(error.value)


def test_a_row_may_have_no_scale_no_window_and_no_resize() -> None:
    config, card = load_config(), load_card("wbs_si")
    row = config.row("floss[scale=none,window=none,resize=original]")
    settings = config.settings_of("mine", card, Overrides(), row)
    assert (settings.scale, settings.window, settings.resize.size(30, 50)) == (PROBABILITIES, WHOLE, (30, 50))
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings
    for wrong in ("window=8", "resize=large", "scale=-1"):
        with pytest.raises(BenchError, match=wrong.partition("=")[0]):
            config.row(f"floss[{wrong}]")
    for mapping in ({}, {"long_max": 9000}, {"long_side": 448, "short_side": 336}):
        with pytest.raises(ValueError, match="either long_side or short_side"):
            ResizeRule(**mapping)


def test_a_method_is_refused_on_a_backbone_that_it_is_not_made_for(tmp_path: Path) -> None:
    file = tmp_path / "towers.yaml"
    file.write_text("backbones: {other: {library: sam3, model: facebook/sam3}}\n")
    with pytest.raises(BenchError, match=r"row 'clip@other': clip needs a backbone of library open_clip, and 'other'"):
        run("clip@other", "wbs_si", config=file, data_root=tmp_path, results=tmp_path / "results")
    with pytest.raises(BenchError, match="scale none is for methods that make probabilities"):
        load_segmenter("clip[scale=none]", "road; water", backbone="demo", device="cpu")
