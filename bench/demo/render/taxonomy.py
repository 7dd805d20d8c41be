"""The classes that the renderer draws, and how each dataset's classes are made of them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.data.cards import Card
from bench.errors import BenchError, did_you_mean
from bench.settings import IGNORED

MASTER: Final = (
    "clutter",
    "bareland",
    "grass",
    "pavement",
    "road",
    "tree",
    "water",
    "cropland",
    "building",  # seen from above: its roof
    "facade",
    "car",
    "truck",
    "human",
    "ship",
    "store tank",
    "baseball diamond",
    "tennis court",
    "basketball court",
    "ground track field",
    "bridge",
    "helicopter",
    "swimming pool",
    "roundabout",
    "soccer field",
    "plane",
    "harbor",
)
MASTER_INDEX: Final = {name: index for index, name in enumerate(MASTER)}

_LAND_COVER: Final[dict[str, tuple[str, ...]]] = {
    "bareland": ("bareland", "baseball diamond"),
    "grass": ("grass", "soccer field"),
    "pavement": ("pavement", "tennis court", "basketball court", "ground track field", "harbor"),
    "road": ("road", "bridge", "roundabout", "car", "truck"),
    "tree": ("tree",),
    "water": ("water", "swimming pool", "ship"),
    "cropland": ("cropland",),
    "building": ("building", "facade", "store tank"),
}
_ISPRS: Final[dict[str, tuple[str, ...]]] = {
    "impervious_surface": ("road", "pavement", "bridge", "roundabout"),
    "building": ("building", "facade"),
    "low_vegetation": ("grass", "cropland", "soccer field"),
    "tree": ("tree",),
    "car": ("car", "truck"),
}
_VEHICLES: Final = ("car", "truck")
_BUILDING: Final[dict[str, tuple[str, ...]]] = {"building": ("building", "facade", "store tank")}
_ROAD: Final[dict[str, tuple[str, ...]]] = {"road": ("road", "bridge", "roundabout", "car", "truck")}

# Where one class has no entry, it takes whatever is left; where several have none, what is left is not labelled.
_PARTS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "openearthmap": _LAND_COVER,
    "loveda": {
        "building": _LAND_COVER["building"],
        "road": _LAND_COVER["road"],
        "water": _LAND_COVER["water"],
        "barren": _LAND_COVER["bareland"],
        "forest": _LAND_COVER["tree"],
        "agricultural": _LAND_COVER["cropland"],
    },
    "isaid": {
        "ship": ("ship",),
        "store_tank": ("store tank",),
        "baseball_diamond": ("baseball diamond",),
        "tennis_court": ("tennis court",),
        "basketball_court": ("basketball court",),
        "ground_track_field": ("ground track field",),
        "bridge": ("bridge",),
        "large_vehicle": ("truck",),
        "small_vehicle": ("car",),
        "helicopter": ("helicopter",),
        "swimming_pool": ("swimming pool",),
        "roundabout": ("roundabout",),
        "soccer_ball_field": ("soccer field",),
        "plane": ("plane",),
        "harbor": ("harbor",),
    },
    "potsdam": _ISPRS,
    "vaihingen": _ISPRS,
    "uavid": {
        "building": ("building", "facade"),
        "road": ("road", "roundabout"),
        "car": _VEHICLES,
        "tree": ("tree",),
        "vegetation": ("grass", "cropland"),
        "human": ("human",),
    },
    "udd5": {
        "vegetation": ("grass", "tree", "cropland"),
        "building": ("building", "facade"),
        "road": ("road", "roundabout"),
        "vehicle": _VEHICLES,
    },
    "vdd": {
        "wall": ("facade",),
        "road": ("road", "roundabout"),
        "vegetation": ("grass", "tree", "cropland"),
        "vehicle": _VEHICLES,
        "roof": ("building",),
        "water": ("water", "swimming pool"),
    },
    **dict.fromkeys(("whu_aerial", "whu_sat_ii", "inria", "xbd_pre"), _BUILDING),
    **dict.fromkeys(("chn6_cug", "deepglobe_road", "massachusetts_road", "spacenet_road"), _ROAD),
    "wbs_si": {"water": ("water", "swimming pool")},
    "pascal_context59": {
        "aeroplane": ("plane",),
        "boat": ("ship",),
        "building": ("building", "facade", "store tank"),
        "car": ("car",),
        "grass": ("grass", "soccer field"),
        "ground": ("bareland", "baseball diamond"),
        "person": ("human",),
        "road": _LAND_COVER["road"][:3],
        "sidewalk": ("pavement",),
        "tree": ("tree",),
        "truck": ("truck",),
        "water": ("water", "swimming pool"),
    },
    "coco_stuff164k": {
        "person": ("human",),
        "car": ("car",),
        "airplane": ("plane",),
        "truck": ("truck",),
        "boat": ("ship",),
        "bridge": ("bridge",),
        "dirt": ("bareland",),
        "grass": ("grass",),
        "pavement": ("pavement",),
        "playingfield": ("soccer field", "baseball diamond", "tennis court", "basketball court"),
        "river": ("water",),
        "road": ("road", "roundabout"),
        "roof": ("building",),
        "tree": ("tree",),
        "wall-other": ("facade",),
    },
    "cityscapes": {
        "road": _LAND_COVER["road"][:3],
        "sidewalk": ("pavement",),
        "building": ("building",),
        "wall": ("facade",),
        "vegetation": ("tree",),
        "terrain": ("grass", "bareland", "cropland"),
        "person": ("human",),
        "car": ("car",),
        "truck": ("truck",),
    },
}

CARDS: Final = tuple(_PARTS)


def class_table(card: Card) -> NDArray[np.uint8]:
    """Lookup table (len(MASTER),) uint8: master index -> class index of a dataset."""
    if card.name not in _PARTS:
        raise BenchError(f"the demo has no dataset '{card.name}'; {did_you_mean(card.name, _PARTS)}")
    parts = _PARTS[card.name]
    rest = [name for name in card.classes if name not in parts]
    table = np.full(len(MASTER), card.classes.index(rest[0]) if len(rest) == 1 else IGNORED, np.uint8)
    for name, masters in parts.items():
        table[[MASTER_INDEX[master] for master in masters]] = card.classes.index(name)
    return table
