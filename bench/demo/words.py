"""The words that the tiny CLIP has learned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# Words that name one concept -> the classes of `taxonomy.MASTER` that it covers.
CONCEPTS: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("clutter",): ("clutter",),
    ("bareland", "barren", "bare soil"): ("bareland",),
    ("grass", "lawn"): ("grass",),
    ("low vegetation",): ("grass", "cropland", "soccer field"),
    ("vegetation",): ("grass", "cropland", "soccer field", "tree"),
    ("pavement", "parking lot"): ("pavement",),
    ("impervious surface",): ("pavement", "road", "bridge", "roundabout"),
    ("road", "street"): ("road", "bridge", "roundabout"),
    ("tree", "forest"): ("tree",),
    ("water", "river", "lake"): ("water",),
    ("cropland", "agricultural", "farmland"): ("cropland",),
    ("building", "house"): ("building", "facade"),
    ("roof",): ("building",),
    ("facade", "wall"): ("facade",),
    ("vehicle",): ("car", "truck"),
    ("car", "small vehicle"): ("car",),
    ("large vehicle", "truck"): ("truck",),
    ("human", "person"): ("human",),
    ("ship", "boat"): ("ship",),
    ("store tank", "storage tank"): ("store tank",),
    ("baseball diamond",): ("baseball diamond",),
    ("tennis court",): ("tennis court",),
    ("basketball court",): ("basketball court",),
    ("ground track field",): ("ground track field",),
    ("bridge",): ("bridge",),
    ("helicopter",): ("helicopter",),
    ("swimming pool",): ("swimming pool",),
    ("roundabout",): ("roundabout",),
    ("soccer ball field", "soccer field"): ("soccer field",),
    ("plane", "airplane"): ("plane",),
    ("harbor", "pier"): ("harbor",),
}
BACKGROUND: Final = "background"
WORDS: Final = (*(word for words in CONCEPTS for word in words), BACKGROUND)


def unknown_words(prompts: Iterable[str]) -> tuple[str, ...]:
    """Return the prompts that the demo backbone was not trained on: their embeddings mean nothing.

    A prompt is known when it is one of WORDS, whatever its case, its underscores and its spaces around.
    """
    known = set(WORDS)
    return tuple(prompt for prompt in prompts if re.sub(r"[\s_]+", " ", prompt).strip().lower() not in known)
