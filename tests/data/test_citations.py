"""Papers of methods, upsamplers and models as BibTeX."""

from __future__ import annotations

import re

from bench.config import load_config
from bench.data.cards import load_card
from bench.data.citations import bibtex, citations
from bench.registry import load_methods
from bench.report.published import method_facts


def test_every_built_in_row_and_each_of_the_17_gives_an_entry() -> None:
    config, known, methods = load_config(), citations(), load_methods()
    for name in {*config.rows, *config.default_rows, *(row for rows in config.groups.values() for row in rows)}:
        assert config.row(name).method in known, name
    for name in config.default_datasets:
        assert bibtex([load_card(name)]).startswith("@misc{"), name
    parts = {*methods, *config.upsamplers, *config.backbones, *config.models, "pamr", "pamr-original", "tlp"}
    assert set(known) == parts - {"nearest", "bilinear"}


def test_papers_agree_with_their_addresses_and_have_a_year() -> None:
    for name, (authors, title, venue, *eprint) in citations().items():
        assert title and re.search(r"\b20\d\d\b", venue) and not authors.endswith(","), name
        assert not eprint or re.fullmatch(r"\d{4}\.\d{5}", eprint[0]), name
        address = method_facts().get(name, {}).get("paper", "")
        if eprint and "arxiv.org" in address:
            assert address.endswith(eprint[0]), name


def test_two_papers_of_one_key_are_kept_apart() -> None:
    text = bibtex([], ["segearth-ov", "segearth-ov3", "simfeatup", "naclip"])
    assert re.findall("@misc{(.*),", text) == ["li2025segearth", "li2025segeartha", "hajimiri2025pay"]
    assert "author = {Hajimiri and {Ben Ayed} and Dolz}" in text
