"""python -m tools.demo.train_clip: train the tiny CLIP from scratch on rendered scenes with captions."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor

from bench.demo.config import WEIGHTS
from tools.demo.captions import draw_captions, matches
from tools.demo.contrastive import TinyClip, contrastive_loss, jitter
from tools.demo.packed import load_packed, read_config, save_packed
from tools.demo.pool import Pool, load_pool

_SHARES: Final = (1 / 3, 1 / 3, 1 / 3)  # of the crops, for each of READINGS
_SEVERAL: Final = 16  # captions of more than one word in a step
_AVERAGING: Final = 0.99  # of the moving average of the weights, which is what is saved
_SAVE_EVERY: Final = 120.0  # seconds


@dataclass(frozen=True)
class Stage:
    """Crops of `side` pixels, `batch` at a time, until this share of the time is over."""

    side: int
    batch: int
    until: float


STAGES: Final = (Stage(32, 192, 0.25), Stage(48, 160, 0.6), Stage(112, 48, 0.93), Stage(224, 16, 1.0))


class Trainer:
    """Model, optimiser and the moving average of the weights."""

    def __init__(self, model: TinyClip, seed: int, learning_rate: float = 1.2e-3) -> None:
        self.model = model
        self.learning_rate = learning_rate
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        matrices = [value for value in model.parameters() if value.ndim > 1]
        others = [value for value in model.parameters() if value.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, learning_rate, betas=(0.9, 0.98))
        self.average = {name: value.detach().clone() for name, value in model.clip.state_dict().items()}
        self.steps = 0

    def step(self, images: Tensor, shares: np.ndarray[tuple[int, ...], np.dtype[np.float32]], progress: float) -> float:
        """Update once on crops (N, S, S, 3) uint8 whose master classes cover `shares` (N, classes); gives the loss.

        progress 0..1 sets the learning rate: a short rise, then half a cosine.
        """
        rate = self.learning_rate * min(1, (self.steps + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        captions = draw_captions(self.rng, shares, _SEVERAL)
        weight, unsure = (torch.from_numpy(array) for array in matches(shares, captions))
        rows, columns = (side - images.shape[1] // 16 + 1 for side in self.model.clip.visual.grid_size)
        corner = int(self.rng.integers(rows)), int(self.rng.integers(columns))
        readings = torch.multinomial(torch.tensor(_SHARES), len(images), replacement=True, generator=self.generator)
        seen = self.model.encode_crops(jitter(images, self.generator), corner, readings)
        said = self.model.encode_captions(captions.sentences)
        loss = contrastive_loss(seen @ said.T * self.model.clip.logit_scale.exp(), weight, unsure)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            self.model.clip.logit_scale.clamp_(max=math.log(100))
            self._update_average()
        self.steps += 1
        return loss.item()

    def _update_average(self) -> None:
        share = 1 - min(_AVERAGING, (self.steps + 1) / (self.steps + 10))
        for name, value in self.model.clip.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, share)


def train(pool: Pool, out: Path, minutes: float, seed: int, start_from: Path | None = None) -> Trainer:
    """Train for a time, saving every few minutes and at the end. Reports on standard output.

    start_from: weights to continue from, instead of random ones.
    """
    torch.manual_seed(seed)
    model = TinyClip(read_config())
    if start_from is not None:
        model.load(load_packed(start_from))
    trainer = Trainer(model, seed)
    start = saved = time.monotonic()
    losses: list[float] = []
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        stage = next(stage for stage in STAGES if progress < stage.until)
        images, shares = pool.crops(trainer.rng, stage.batch, stage.side)
        losses.append(trainer.step(torch.from_numpy(images), shares, progress))
        if trainer.steps % 50 == 0:
            print(
                f"{progress:6.1%}  step {trainer.steps}  side {stage.side}  loss {np.mean(losses[-50:]):.3f}",
                flush=True,
            )
        if time.monotonic() - saved > _SAVE_EVERY:
            _save(trainer, out, minutes, seed)
            saved = time.monotonic()
    _save(trainer, out, minutes, seed)
    return trainer


def _save(trainer: Trainer, out: Path, minutes: float, seed: int) -> None:
    recipe = {"minutes": minutes, "seed": seed, "steps": trainer.steps}
    save_packed(trainer.average, trainer.model.tokens, out, {"recipe": json.dumps(recipe)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.train_clip", description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "tiny-clip.safetensors", help="the weights' file")
    parser.add_argument("--minutes", type=float, default=60, help="training time, without rendering")
    parser.add_argument("--from", type=Path, dest="start_from", help="weights to continue from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=4000, help="how many scenes to render")
    parser.add_argument("--pool", type=Path, help="folder of rendered scenes to use, or to fill and keep")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        pool = load_pool(options.pool or Path(scratch), options.scenes, options.threads, options.seed)
        train(pool, options.out, options.minutes, options.seed, options.start_from)


if __name__ == "__main__":
    main()
