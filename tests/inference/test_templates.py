"""Ranking prompt templates by what they find sure."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from reference import tiny_backbone
from torch import Tensor

from bench.cli import main
from bench.config import load_config
from bench.demo.config import load_demo_backbone
from bench.inference import templates
from bench.inference.row import Row
from bench.inference.segmenter import Segmenter
from bench.models.backbone import Trunk
from bench.models.text import TEMPLATES, encode_words
from bench.registry import load_methods
from bench.settings import ResizeRule

WORDS = ("tree", "water", "road")


class Fixed:
    """A method that gives the left and the right half of a window the scores that are set for a template."""

    def __init__(self, scores: dict[str, list[list[float]]]) -> None:
        self.backbone, self.scores_of = tiny_backbone(), scores

    def scores(self, trunk: Trunk, text: Tensor) -> Tensor:
        """Scores (B, Q, H, W)."""
        encoded = {template: encode_words(self.backbone, ["a", "b"], [template.format]) for template in self.scores_of}
        (halves,) = (self.scores_of[template] for template, found in encoded.items() if torch.equal(found, text))
        height, width = trunk.images.shape[-2:]
        return torch.tensor(halves).repeat_interleave(width // 2, 1)[None, :, None].expand(1, 2, height, width)


def test_the_mean_entropy_of_the_pixels_of_each_word_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {
        "a {}": [[0.05, 0.00], [0.00, 0.05]],  # both words, e⁵ : 1
        "the {}": [[0.50, 0.50], [0.00, 0.00]],  # the first alone, as sure as can be
        "no {}": [[0.00, 0.00], [0.01, 0.02]],  # the second alone, hardly sure
    }
    monkeypatch.setattr(templates, "TEMPLATES", [template.format for template in scores])
    fixed = Fixed(scores)
    row = Row("fixed", fixed, torch.zeros(2, 24), torch.arange(2))  # type: ignore[arg-type]
    segmenter = Segmenter(fixed.backbone, [row], 32, 32, resize=ResizeRule(long_side=32))
    image = np.zeros((32, 32, 3), np.uint8)
    assert templates.rank_templates(segmenter, ["a", "b"], [image]) == [[1, 0], [0, 2]]
    assert templates.rank_templates(segmenter, ["a", "b"], [image], keep=1) == [[1], [0]]


def test_pieces_of_templates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_demo_backbone()
    monkeypatch.setattr(templates, "TEMPLATES", TEMPLATES[:6])
    row = Row("naclip", load_methods()["naclip"].build({}), encode_words(backbone, WORDS), torch.arange(len(WORDS)))
    segmenter = Segmenter(backbone, [row], 224, 112, resize=ResizeRule(long_side=224))
    image = np.random.default_rng(1).integers(0, 255, (150, 224, 3), np.uint8)
    whole = templates.rank_templates(segmenter, WORDS, [image])
    monkeypatch.setattr(templates, "_AT_ONCE", 1)
    assert templates.rank_templates(segmenter, WORDS, [image]) == whole
    assert all(len(set(numbers)) == len(numbers) <= 4 for numbers in whole)


def test_the_command_writes_what_floss_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.random.default_rng(2).integers(0, 255, (120, 160, 3), np.uint8))
    out = tmp_path / "ranking.txt"
    words = ["--classes", "tree; water; road", "--backbone", "demo"]
    assert main(["templates", str(image), *words, "-o", str(out)]) == 0, capsys.readouterr().err
    lines = out.read_text().splitlines()
    assert len(lines) == 3 and all(0 <= int(number) < 80 for line in lines for number in line.split())
    assert "tree: " in capsys.readouterr().out
    chosen = f"floss[ranking={out}]"
    assert main(["predict", str(image), "--method", chosen, *words, "-o", str(tmp_path / "map.png")]) == 0
    assert load_config().row("floss").method == "floss"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.png", "-o", "t.txt"], "gone.png: no such image"),
        ([__file__, "-o", "no/such/folder/t.txt"], "there is no folder no/such/folder"),
    ],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["templates", *arguments, "--classes", "tree; water"]) == 2
    assert said in capsys.readouterr().err
