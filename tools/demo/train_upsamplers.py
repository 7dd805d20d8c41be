"""python -m tools.demo.train_upsamplers: the demo's stand-ins for the upsamplers of Table 5, by `bench train`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from tqdm import tqdm

from bench.demo.config import WEIGHTS
from bench.demo.render.scenes import KINDS, TRAIN_SEEDS, scene

SIDE: Final = 256
_COMMON: Final = (
    *("--backbone", "demo", "--crop", "64", "--batch", "4", "--jitters", "3", "--upsample-once"),
    *("--normalise", "clip", "--lr", "3e-3", "--workers", "0", "--save-every", "50"),
)


@dataclass(frozen=True)
class Recipe:
    """Difference between a row of Table 5 and SimFeatUp.

    remote_sensing: scenes of all kinds, else only the oblique views of kind "uav", which stand in for natural images
    """

    remote_sensing: bool
    flags: tuple[str, ...]


RECIPES: Final = {
    "featup-clip": Recipe(False, ("--feature", "output", "--kind", "jbu_stack", "--image-loss", "0")),
    "featup-maskclip": Recipe(False, ("--feature", "maskclip", "--kind", "jbu_stack", "--image-loss", "0")),
    "x-cocostuff": Recipe(False, ("--kind", "jbu_stack", "--image-loss", "0")),
    "x-million-aid": Recipe(True, ("--kind", "jbu_stack", "--image-loss", "0")),
    "x-jbu-one": Recipe(True, ("--radius", "3", "--image-loss", "0")),
    "x-jbu-one-image": Recipe(True, ("--radius", "3")),
    "simfeatup": Recipe(True, ()),
}


def write_scenes(folder: Path, count: int) -> None:
    """Render `count` scenes for each of `all/` and `uav/`, from the last seeds of the training range."""
    for name, kinds in (("all", KINDS), ("uav", ("uav",))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, seed in enumerate(tqdm(TRAIN_SEEDS[-count:], f"rendering {name}", disable=None)):
            file = folder / name / f"{seed}.png"
            if not file.exists():
                Image.fromarray(scene(seed, SIDE, kinds[index % len(kinds)])[0]).save(file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.train_upsamplers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (all: {', '.join(RECIPES)})")
    parser.add_argument("--work", type=Path, required=True, help="folder for scenes, checkpoints, logs and pictures")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the trained upsamplers go")
    parser.add_argument("--steps", default="400", help="updates of each (400)")
    parser.add_argument("--scenes", type=int, default=400, help="rendered images of each set (400)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    write_scenes(options.work, options.scenes)
    for name in options.names or RECIPES:
        recipe = RECIPES[name]
        images, out = options.work / ("all" if recipe.remote_sensing else "uav"), options.work / name
        flags = (*_COMMON, *recipe.flags, "--steps", options.steps, "--images", str(images), "--out", str(out))
        if subprocess.run([sys.executable, "-m", "bench", "train", "upsampler", *flags], check=False).returncode:
            raise SystemExit(2)
        options.out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / "upsampler.safetensors", options.out / f"{name}.safetensors")


if __name__ == "__main__":
    main()
