"""Captions of rendered scenes, and how well they fit a crop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from open_clip import OPENAI_IMAGENET_TEMPLATES

from bench.demo.content import CONCEPTS, MASTER, MASTER_INDEX, WORDS

# "background" is true of every picture, but counts as this small a share of it: as a full positive it would keep the
# probability of every other word below the thresholds.
BACKGROUND_SHARE: Final = 0.05
_PHRASES: Final = (
    "{}",
    "{}.",
    "an aerial image of {}.",
    "a satellite photo of {}.",
    "{} seen from above.",
    "a drone picture of {}.",
    "an overhead view of {}.",
    "remote sensing image with {}.",
    "a scene with {}.",
    "land covered by {}.",
)
_PRESENT: Final = 0.04  # share of a crop from which a concept is certainly shown
_ABSENT: Final = 0.004  # share below which it certainly is not


def _membership() -> NDArray[np.float32]:
    """(len(MASTER), len(WORDS)): 1 where a pixel of the master class is a pixel of the word."""
    table = np.zeros((len(MASTER), len(WORDS)), np.float32)
    for words, masters in CONCEPTS.items():
        for word in words:
            table[[MASTER_INDEX[name] for name in masters], WORDS.index(word)] = 1
    table[:, -1] = BACKGROUND_SHARE
    table[MASTER_INDEX["clutter"], -1] = 1
    return table


@dataclass(frozen=True)
class Captions:
    """Sentences and, for each, which of WORDS it says: says (M, len(WORDS)) bool."""

    sentences: tuple[str, ...]
    says: NDArray[np.bool_]


def draw_captions(rng: np.random.Generator, shares: NDArray[np.float32], several: int) -> Captions:
    """Caption crops: every word once, alone, and `several` sentences of two or three words that are true of one.

    shares: (N, len(MASTER)), the share of each crop that each master class covers.
    """
    said = [(index,) for index in range(len(WORDS))]
    shown = word_shares(shares)[:, :-1] >= _PRESENT
    for crop in rng.integers(len(shares), size=several):
        true = np.flatnonzero(shown[crop])
        count = min(int(rng.integers(2, 4)), len(true))
        said.append(tuple(rng.permutation(true)[:count].tolist()) or (len(WORDS) - 1,))
    says = np.zeros((len(said), len(WORDS)), bool)
    for row, indices in enumerate(said):
        says[row, list(indices)] = True
    return Captions(tuple(_sentence(rng, [WORDS[index] for index in indices]) for indices in said), says)


def _sentence(rng: np.random.Generator, words: list[str]) -> str:
    text = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    if rng.random() < 0.6:
        return str(OPENAI_IMAGENET_TEMPLATES[rng.integers(len(OPENAI_IMAGENET_TEMPLATES))](text))
    return _PHRASES[rng.integers(len(_PHRASES))].format(text)


def word_shares(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the share of each crop that each word covers, (N, len(WORDS)), from those of master classes."""
    return shares @ _membership()


def matches(shares: NDArray[np.float32], captions: Captions) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return how well captions fit crops.

    Returns weight (N, M): the share of the caption's rarest word where all its words are certainly shown,
    else 0; and unsure (N, M): where a word is neither certainly shown nor certainly absent and none is
    absent.
    """
    words = word_shares(shares)
    rarest = np.min(np.where(captions.says[None], words[:, None, :], 2.0), axis=2)
    weight = np.where(rarest >= _PRESENT, rarest, 0).astype(np.float32)
    return weight, (rarest < _PRESENT) & (rarest >= _ABSENT)


def sentences_of_training() -> Iterable[str]:
    """Sentences that hold, together, every token the text tower is trained on."""
    for word in WORDS:
        yield f"{word}, {word} and {word}"
    for template in OPENAI_IMAGENET_TEMPLATES:
        yield template(WORDS[0])
        yield template(f"{WORDS[0]}, {WORDS[0]} and {WORDS[0]}")
    for phrase in _PHRASES:
        yield phrase.format(WORDS[0])
