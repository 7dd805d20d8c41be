"""One results folder with every kind of result, and one verdict on each in all outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from store_helpers import INPUTS, certain, settings, spec, stored
from table_helpers import CONFIG, FAIR, GOOD, as_configured, put

from bench.cli import main
from bench.data.cards import load_card
from bench.report.comparison import compare
from bench.report.frames import per_class, per_image, scores, tables
from bench.report.render import csv_lines, html_table, latex, markdown
from bench.report.scores import Collection, collect, scores_of
from bench.report.site.page import page_data
from bench.report.tables import leaderboard
from bench.runtime.checksum import sealed
from bench.settings import DatasetFacts
from bench.store.count_files import IMPORTED
from bench.store.store import Store

IMAGES = [GOOD, FAIR] * 20
SWAPPED = [[line[::-1] for line in image[::-1]] for image in IMAGES]
SAID = {
    "clip": ("ok", ""),
    "maskclip": ("ok", ""),
    "sclip": ("ok", ""),
    "gem": ("incomplete", "38 of 40 images"),
    "clearclip": ("too many", "42 images, 40 expected"),
    "segearth-ov": ("stale", "stale"),
    "sclip[threshold=0.33]": ("upper bound", "upper bound"),
    "sclip[scale=40]": ("upper bound", "upper bound"),
    "sclip[scale=60]": ("upper bound", "upper bound"),
    "sclip[scale=50]": ("ok", ""),
    "sclip[debias=0.1]": ("ok", ""),
    "maskclip+ours": ("other dtype", "other dtype"),
    "clip+ours": ("other weights", "other weights"),
    "gem+ours": ("other backbone", "other backbone"),
    "sclip+ours": ("other images", "other images"),
    "clearclip+ours": ("other labels", "other labels"),
    "clip+lost": ("other configuration", "other configuration"),
    "proxyclip": ("partial", "30 of 40 images"),
    "ignored": ("no labels", "no labels, external"),
    "mine": ("ok", "external"),
    "lost": ("failed", "failed"),
    "broken": ("damaged", "damaged"),
}
"""Row on udd5 -> status and words of its verdict."""


def town(folder: Path, row: str, scale: float = 50.0) -> None:
    """A complete cell on a dataset of somebody's own card, which the cell keeps what is needed of."""
    card = DatasetFacts(
        name="town",
        title="My Town",
        task="building",
        palette=((0, 0, 0), (9, 9, 9)),
        expected_count=12,
        threshold=0.0,
        background=0,
        words=(("ground",), ("house",)),
        known_vocabularies=("cvpr2025",),
    )
    now = CONFIG.settings_of(row, card, CONFIG.row(row)).model_copy(update={"scale": scale})
    found = spec(12, settings=now, classes=("ground", "house"), metric="foreground_iou", card=card, expected=12)
    writer = Store(folder).open(found)
    for index, image in enumerate(IMAGES[:12]):
        writer.add(index, *certain(image))
    writer.finish(seconds=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("every-kind")
    same, other = [f"i{index} l{index}" for index in range(40)], [f"x{index} l{index}" for index in range(40)]
    for row in ("clip", "maskclip", "sclip"):
        put(folder, row, "udd5", IMAGES, inputs={**INPUTS, "dtype": "fp32"}, contents=same)
    put(folder, "sclip+ours", "udd5", IMAGES, contents=[*other[:6], *same[6:]])
    put(folder, "gem", "udd5", IMAGES[:38])
    put(folder, "clearclip", "udd5", [*IMAGES, GOOD, FAIR])
    put(folder, "segearth-ov", "udd5", IMAGES, changes={"scale": 40.0})
    for settings_of_row in ("threshold=0.33", "scale=40", "scale=60", "scale=50", "debias=0.1"):
        put(folder, f"sclip[{settings_of_row}]", "udd5", IMAGES)
    put(folder, "maskclip+ours", "udd5", IMAGES, inputs={**INPUTS, "dtype": "bf16"}, info={"dtype": "bf16"})
    put(folder, "clip+ours", "udd5", IMAGES, inputs={**INPUTS, "weights": "another"})
    put(folder, "gem+ours", "udd5", IMAGES, changes={"backbone": "/home/me/tiny.json"})
    put(folder, "clearclip+ours", "udd5", SWAPPED)
    put(folder, "clip+lost", "udd5", IMAGES, like="clip")
    put(folder, "proxyclip", "udd5", IMAGES[:30], total=40)
    external = {"method": "external", "backbone": "external", "vocabulary": "external"}
    put(folder, "mine", "udd5", IMAGES, changes=external, info={"caveat": "external: by another program"})
    put(folder, "ignored", "udd5", [[[0, 0], [0, 0]]] * 40, changes=external)
    Store(folder).record_gap(spec(0, settings=settings("lost", "udd5")), "failed", "out of memory")
    put(folder, "broken", "udd5", IMAGES)
    (folder / "cells/udd5/broken/cell.json").write_text("{")
    town(folder, "clip")
    town(folder, "sclip", scale=40.0)
    for row in ("clip", "sclip"):
        put(folder, row, "vdd", IMAGES, demo=True)
        put(folder, row, "udd5", IMAGES[:2], limit=2)
    yield folder


@pytest.fixture(scope="module")
def collections(folder: Path) -> dict[str, Collection]:
    return {one.name: one for one in collect(folder, CONFIG, 200)}


def test_each_kind_has_its_verdict(collections: dict[str, Collection]) -> None:
    assert set(collections) == {"", "demo", "limited-2"}
    found = {row: one.verdict for (row, dataset), one in collections[""].scores.items() if dataset == "udd5"}
    assert {row: (one.status, one.text) for row, one in found.items()} == SAID
    assert all(one.ranked == (one.status == "ok") for one in found.values())
    tried = {"sclip[scale=50]", "sclip[debias=0.1]"}
    assert {row for row, one in found.items() if one.comparable} == {"clip", "maskclip", "sclip", *tried}
    assert "one of 3 values of scale" in found["sclip[scale=40]"].words
    assert "6 of 40 image files are not those of most rows" in found["sclip+ours"].words
    assert "cannot be held against benchmark.yaml: row 'clip+lost': unknown modifier" in found["clip+lost"].words
    assert "scale 40.0 -> 50.0" in found["segearth-ov"].words and "{" not in found["broken"].text
    for name in ("demo", "limited-2"):
        assert all(one.complete and not one.comparable for one in collections[name].scores.values())


def test_all_outputs_say_the_same(folder: Path, collections: dict[str, Collection]) -> None:
    collection = collections[""]
    grid = leaderboard(CONFIG, collection)
    page = {(cell["row"], cell["dataset"]): cell for cell in page_data(collection, CONFIG)["cells"]}
    lines = {(line["row"], line["dataset"]): line for line in csv_lines(grid)}
    frame = {(line["row"], line["dataset"]): line for line in scores(folder).to_dict("records")}
    classes = per_class(folder).to_dict("records")
    text, page_of_html, tex = markdown(grid), html_table(grid), latex(grid)
    for (row, dataset), one in collection.scores.items():
        known = one.verdict
        if one.interval is not None:
            assert (frame[row, dataset]["unit"], frame[row, dataset]["units"]) == ("scene", one.interval.scenes)
        for of in (page[row, dataset], lines[row, dataset], frame[row, dataset]):
            assert of["status"] == known.status, (row, of)
        assert page[row, dataset]["text"] == lines[row, dataset]["shown"] == frame[row, dataset]["shown"] == known.text
        assert page[row, dataset]["complete"] == lines[row, dataset]["ranked"] == frame[row, dataset]["ranked"]
        (entry,) = (line.entries[dataset] for line in grid.lines if line.row == row)
        assert known.ranked or (entry.mark is None and not entry.complete)
        assert known.comparable or entry.difference is None
        shown = known.beside("" if entry.value != entry.value else f"{entry.shown:.1f}")
        assert known.ranked or (shown in text and shown in page_of_html)
        assert all(sentence in text.replace("\\", "") for sentence in known.why)
        assert {line["status"] for line in classes if (line["row"], line["dataset"]) == (row, dataset)} <= {
            known.status
        }
    place = 1 + grid.columns.index("udd5")
    for line in tex.splitlines():
        row = next((one.row for one in grid.lines if line.startswith(f"{one.label} &")), "")
        if row in SAID:
            assert ("--" in line.split("&")[place]) == (SAID[row][0] != "ok"), line
            assert SAID[row][0] == "ok" or "$^{" in line.split("&")[place], line
    constant = next(line for line in tex.splitlines() if line.startswith("Best constant"))
    assert "--" not in constant.rpartition("&")[0]
    assert "Rows differ: udd5 in " in text and "Rows differ: udd5 in " in tex


def test_latex_says_it_where_it_is_printed(collections: dict[str, Collection]) -> None:
    tex = latex(leaderboard(CONFIG, collections[""]))
    for row in ("gem", "clearclip", "proxyclip"):
        assert f"{row} on UDD5: {SAID[row][1]}" in tex
    for name, warning in (("demo", "Demo: synthetic scenes"), ("limited-2", "Limited: only the first images")):
        tex = latex(leaderboard(CONFIG, collections[name]))
        assert any(warning in line for line in tex.splitlines() if not line.startswith("%"))


def test_a_frame_of_images_says_it_too(folder: Path) -> None:
    for row in ("clip", "gem", "segearth-ov", "mine"):
        found = per_image(row, "udd5", folder)
        assert set(found.status) == {SAID[row][0]} and found.score.notna().all()
        assert SAID[row][1] in str(found.reason[0])


def test_show_and_compare_say_it_too(
    folder: Path, collections: dict[str, Collection], capsys: pytest.CaptureFixture[str]
) -> None:
    known = {key: one for key, one in collections[""].scores.items() if key[1] == "udd5"}
    judged = scores_of(Store(folder), CONFIG, datasets=["udd5"])
    for (row, _), one in known.items():
        result = compare(Store(folder), "clip", row, ["udd5"], 200, judged) if row != "broken" else None
        if result is not None:
            assert bool(result.pairs) == one.complete
            assert one.complete or f"{row}: {one.verdict.words}" in result.left_out["udd5"]
    for row in ("sclip", "segearth-ov", "sclip[threshold=0.33]", "gem", "mine"):
        assert main(["show", row, "udd5", "--results", str(folder)]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("verdict")]
        assert line.removeprefix("verdict").strip() == (SAID[row][1] or "complete")


def test_page_tables_and_compare_have_one_p(folder: Path, collections: dict[str, Collection]) -> None:
    of_page = page_data(collections[""], CONFIG)["paired"]
    (pair,) = compare(Store(folder), "clip", "sclip", ["udd5"], 200).pairs
    found = of_page.get("clip\tsclip") or of_page["sclip\tclip"]
    assert found["udd5"][2] == round(pair.test.p_value, 5)
    assert collections[""].p_values(["clip", "sclip"], ["udd5"])["clip", "sclip"] == pair.test.p_value


def test_nothing_foreign_ends_the_tables(folder: Path, tmp_path: Path) -> None:
    names = {file.name for file in tables(folder, tmp_path, formats=("md", "csv", "latex", "html"), draws=50)}
    assert {"leaderboard.md", "per_class.csv", "thresholds.csv", "per_class-demo.csv"} <= names
    assert {"per_class-limited-2.csv", "thresholds-limited-2.csv", "leaderboard-limited-2.tex"} <= names


def test_stale_and_swept_results_do_not_decide_what_is_usual(tmp_path: Path) -> None:
    put(tmp_path, "clip", "udd5", IMAGES, inputs={**INPUTS, "dtype": "fp32"})
    for number in range(3):
        other = {"inputs": {**INPUTS, "dtype": "bf16", "weights": "another"}}
        put(tmp_path, f"gem[blocks={number + 1}]", "udd5", SWAPPED, changes={"scale": 40.0}, **other)
        put(tmp_path, f"sclip[scale={number + 1}]", "udd5", SWAPPED, **other)
    found = {row: one.verdict for (row, _), one in scores_of(Store(tmp_path), CONFIG).items()}
    assert found["clip"].ranked and not found["clip"].differs
    assert set(found["sclip[scale=1]"].differs) == {"labels", "weights", "dtype"}
    assert found["gem[blocks=1]"].status == "stale" and found["sclip[scale=1]"].status == "upper bound"


def test_what_a_result_says_of_itself_is_held_against_what_is_known(tmp_path: Path) -> None:
    """An imported one may have any date, options that its name does not say, and no word of its layout."""
    for row, images in (("clip", IMAGES), ("gem", SWAPPED)):
        put(tmp_path, row, "udd5", images)
    put(tmp_path, "sclip", "udd5", IMAGES, changes={"options": {"residual": "keep"}})
    put(tmp_path, "clip", "spacenet_road", IMAGES, info={"layout": "official"})
    put(tmp_path, "mine", "udd5", IMAGES, changes={"method": "external"})
    file = tmp_path / "cells/udd5/gem/cell.json"
    record = json.loads(file.read_text()) | {"written": "2099-01-01T00:00:00Z"}
    file.write_text(json.dumps(sealed(record)))
    (file.parent / IMPORTED).write_text(json.dumps({"archive": "a.zip", "counts_sha256": record["counts_sha256"]}))
    found = {key: one.verdict for key, one in scores_of(Store(tmp_path), CONFIG).items()}
    assert found["clip", "udd5"].ranked and found["gem", "udd5"].status == "other labels"
    assert found["sclip", "udd5"].stale == ("option residual keep -> none",)
    (caveat,) = found["clip", "spacenet_road"].caveats
    assert caveat.startswith("layout 'official' is not the published preparation (")
    assert found["mine", "udd5"].ranked and not found["mine", "udd5"].comparable


def test_a_sweep_of_the_demo_is_an_upper_bound_too(tmp_path: Path) -> None:
    for row in ("sclip", "sclip[threshold=0.33]", "sclip[scale=1]", "sclip[scale=2]", "sclip[vocabulary=plain]"):
        put(tmp_path, row, "udd5", IMAGES, demo=True)
    found = {row: one.verdict.status for (row, _), one in scores_of(Store(tmp_path), CONFIG).items()}
    assert [row for row, status in found.items() if status == "ok"] == ["sclip", "sclip[vocabulary=plain]"]


def test_foreign_names_and_metrics_cost_themselves_alone(tmp_path: Path) -> None:
    names = ("clip+nope", "clip[protocol=nope]", "clip@nope", "clip[scale=x]", "weird[")
    for dataset, demo in (("udd5", False), ("whu_aerial", True)):
        put(tmp_path, "clip", dataset, IMAGES, demo=demo)
        images = [np.pad(image, (0, 3)).tolist() for image in IMAGES] if not demo else IMAGES
        for row in names:
            changes = as_configured("clip", dataset)
            stored(tmp_path, row, dataset, images, changes=changes, metric="aacc", demo=demo)
    found = {key: one.verdict for key, one in scores_of(Store(tmp_path), CONFIG).items()}
    assert found["clip", "udd5"].comparable and found["clip+nope", "whu_aerial"].ranked
    assert all(found[row, "udd5"].status in ("other metric", "stale") for row in names)
    assert "unknown protocol 'nope'" in found["clip[protocol=nope]", "udd5"].words
    assert len(tables(tmp_path, tmp_path / "tables", draws=50)) > 8
    assert [pair.dataset for pair in compare(Store(tmp_path), "clip", "clip+nope").pairs] == []


def test_an_own_dataset_is_judged_and_named_without_its_card(folder: Path, collections: dict[str, Collection]) -> None:
    clip, sclip = (collections[""].scores[row, "town"].verdict for row in ("clip", "sclip"))
    assert clip.ranked and sclip.stale == ("scale 40.0 -> 50.0",)
    about = page_data(collections[""], CONFIG)["datasets"]
    (shown,) = [one for one in about if one["name"] == "town"]
    assert (shown["title"], shown["task"], shown["classes"]) == ("My Town", "building", ["ground", "house"])
    assert shown["palette"] == [[0, 0, 0], [9, 9, 9]]


def test_a_changed_card_makes_its_results_stale(folder: Path, tmp_path: Path) -> None:
    card: dict[str, Any] = load_card("whu_aerial").model_dump(mode="json", exclude_unset=True)
    card |= {"name": "town", "expected_count": 13, "threshold": 0.5}
    card["vocabularies"] = {"cvpr2025": [["ground"], ["house", "hut"]]}
    (tmp_path / "town.yaml").write_text(yaml.safe_dump(card))
    found = scores_of(Store(folder), CONFIG, [tmp_path], ["town"])["clip", "town"].verdict
    assert found.stale == ("threshold 0.0 -> 0.5", "words changed")
    assert (found.status, found.text) == ("incomplete", "12 of 13 images, stale")


def test_results_of_before_cards_were_kept_are_not_made_stale(tmp_path: Path) -> None:
    for row in ("clip", "sclip"):
        put(tmp_path, row, "udd5", IMAGES)
        town(tmp_path, row)
    for file in tmp_path.glob("cells/*/*/cell.json"):
        record = json.loads(file.read_text())
        del record["card"]
        file.write_text(json.dumps(sealed(record)))
    found = scores_of(Store(tmp_path), CONFIG)
    assert {one.verdict.status for one in found.values()} == {"ok"}
    assert {key[1] for key, one in found.items() if one.comparable} == {"udd5"}
    assert "no card of town was kept with it; give --cards" in found["clip", "town"].verdict.words


def test_words_that_were_chosen_on_the_images_are_said_with_the_number(tmp_path: Path) -> None:
    for row in ("sclip", "sclip[vocabulary=procsam3]"):
        put(tmp_path, row, "udd5", IMAGES)
    found = {row: one.verdict for (row, _), one in scores_of(Store(tmp_path), CONFIG).items()}
    (said,) = found["sclip[vocabulary=procsam3]"].footnotes("a row", "udd5")
    assert said.startswith("words of procsam3 were found with the test images at hand")
    assert found["sclip[vocabulary=procsam3]"].status == "ok" and not found["sclip"].footnotes("a row", "udd5")
