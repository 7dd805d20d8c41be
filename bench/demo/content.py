"""Contents of the demo, from demo.yaml: scenes, the datasets that they stand in for, and words of the tiny CLIP."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import Card
from bench.errors import check_known
from bench.runtime.yaml_files import read_yaml
from bench.settings import IGNORED, Model


class Kind(Model):
    """A kind of scene.

    metre: range of pixels a metre
    ground: class -> how much of it, relatively
    patch: metres that a patch of ground measures
    things: name -> how many a hectare, in the order in which they are placed
    winding: how many winding roads a scene of 256 x 256 pixels has
    block: metres between the streets of a grid, 0 for no grid
    traffic: how busy the roads are
    """

    metre: tuple[float, float]
    ground: dict[str, float]
    patch: float
    things: dict[str, float]
    winding: float = 0.0
    block: float = 0.0
    traffic: float = 0.0


class Shot(Model):
    """One image of a dataset.

    kind: of scene
    size: (height, width) in rendered pixels
    shows: classes of the dataset it must show
    """

    kind: str
    size: tuple[int, int]
    shows: tuple[str, ...] = ()


class Plan(Model):
    """A dataset of the demo.

    parts: class of the dataset -> classes of the renderer that it is made of
    enlarged: pixels of the dataset for one rendered pixel, so that tiles have their real size
    """

    parts: dict[str, tuple[str, ...]]
    shots: tuple[Shot, ...]
    enlarged: float = 1.0
    false_colour: bool = False


class Content(Model):
    """The whole of demo.yaml. words: those of one concept, with commas -> the classes that it covers."""

    classes: tuple[str, ...]
    scenes: dict[str, Kind]
    datasets: dict[str, Plan]
    words: dict[str, tuple[str, ...]]


FILE: Final = Path(__file__).with_name("demo.yaml")
CONTENT: Final = Content.model_validate(read_yaml(FILE, "the file of the package"))
MASTER: Final = CONTENT.classes
MASTER_INDEX: Final = {name: index for index, name in enumerate(MASTER)}
PLANS: Final = CONTENT.datasets
CARDS: Final = tuple(PLANS)
CONCEPTS: Final = {tuple(words.split(", ")): classes for words, classes in CONTENT.words.items()}
BACKGROUND: Final = "background"
WORDS: Final = (*(word for words in CONCEPTS for word in words), BACKGROUND)


def class_table(card: Card) -> NDArray[np.uint8]:
    """Lookup table (len(MASTER),) uint8: master index -> class index of a dataset."""
    check_known(card.name, PLANS, f"the demo has no dataset '{card.name}'")
    parts = PLANS[card.name].parts
    rest = [name for name in card.classes if name not in parts]
    table = np.full(len(MASTER), card.classes.index(rest[0]) if len(rest) == 1 else IGNORED, np.uint8)
    for name, masters in parts.items():
        table[[MASTER_INDEX[master] for master in masters]] = card.classes.index(name)
    return table


def unknown_words(prompts: Iterable[str]) -> tuple[str, ...]:
    """Return the prompts that the demo backbone was not trained on: their embeddings mean nothing.

    A prompt is known when it is one of WORDS, whatever its case, its underscores and its spaces around.
    """
    known = set(WORDS)
    return tuple(prompt for prompt in prompts if re.sub(r"[\s_]+", " ", prompt).strip().lower() not in known)
