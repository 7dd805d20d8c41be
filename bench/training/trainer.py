"""One step of training, exactly repeatable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from bench.models.attention import last_block
from bench.models.backbone import Backbone, Trunk
from bench.runtime.distributed import Distributed
from bench.training.crops import normalise
from bench.training.jitter import apply_jitter, draw_jitter
from bench.training.losses import random_directions
from bench.training.model import Learner, Losses
from bench.training.seeds import Purpose, seed_layers, torch_generator
from bench.training.spec import TrainingConfig

CAUTIOUS_STEPS = 10  # whose gradients are clipped, to a norm of:
CAUTIOUS_NORM = 1e-4
FEATURES: Final[dict[str, Callable[[Trunk], Tensor]]] = {  # what an upsampler can be trained on, tokens (B, h*w, C)
    "x": lambda trunk: trunk.project(trunk.input(-1)).patches,  # eq. 6 as in the released code
    "x-printed": lambda trunk: _projected(trunk.input(-1)[:, 1:], trunk.visual.proj),  # eq. 6, without the layer norm
    "output": lambda trunk: trunk.project(trunk.input(trunk.depth)).patches,  # eq. 2, CLIP's own: FeatUp (CLIP)
    "maskclip": lambda trunk: last_block(trunk, lambda q, k, v: v, residual=False, ffn=False).patches,
}


class StepLosses(NamedTuple):
    """Means over the jitters and the images of all processes."""

    total: float
    reconstruction: float
    image: float


class Trainer:
    """Nets, optimiser, number of steps done. A step's randomness follows from the seed and its number."""

    def __init__(self, backbone: Backbone, settings: TrainingConfig, distributed: Distributed) -> None:
        self.backbone = backbone
        self.settings = settings
        self.distributed = distributed
        self.done = 0
        seed_layers(settings.seed, Purpose.WEIGHTS)
        self.learner = Learner(settings, backbone.dim, backbone.patch_size).to(backbone.device).train()
        self.parameters = list(self.learner.parameters())
        self.optimizer = torch.optim.NAdam(self.parameters, lr=settings.lr)

    def step(self, pixels: Tensor) -> StepLosses:
        """One update on a batch of crops, uint8 (B, S, S, 3).

        As in the released code each jitter goes back through the upsampler on its own, with dropout drawn
        again; with `upsample_once` all share one upsampling, which costs a fifth and is the same but for the
        dropout. Either way the losses' memory is free before the upsampler's own backward pass begins.
        """
        seed_layers(self.settings.seed, Purpose.DROPOUT, self.done, self.distributed.rank)
        images = normalise(pixels, self.settings.normalise, self.backbone.device)
        patches = self._features(images)
        jitters = range(self.settings.jitters)
        self.optimizer.zero_grad()
        sums = torch.zeros(3, device=images.device)
        for sharing in [jitters] if self.settings.upsample_once else [[jitter] for jitter in jitters]:
            upsampled = self.learner.upsample(patches, images)
            leaf = upsampled.detach().requires_grad_()
            for jitter in sharing:
                losses = self._losses(leaf, images, jitter)
                (losses.total / len(jitters)).backward()  # type: ignore[no-untyped-call]
                sums += torch.stack(losses).detach()
            upsampled.backward(leaf.grad)  # type: ignore[no-untyped-call]
        self._update()
        means = sums / len(jitters)
        self.distributed.average_([means])
        return StepLosses(*means.tolist())

    @torch.no_grad()
    def preview(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of a crop, uint8 (1, S, S, 3), before (C, h, w) and after (C, S, S) the upsampler."""
        images = normalise(pixels, self.settings.normalise, self.backbone.device)
        patches = self._features(images)
        self.learner.eval()
        upsampled = self.learner.upsample(patches, images)
        self.learner.train()
        return patches[0], upsampled[0]

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        return feature_map(self.backbone.trunk(images), self.settings.feature)

    def _losses(self, upsampled: Tensor, images: Tensor, number: int) -> Losses:
        """Return the losses of one jitter, which is the same for all images; the directions differ by image."""
        place = (self.done, number)
        jitter = draw_jitter(images.shape[-1], torch_generator(self.settings.seed, Purpose.JITTER, *place))
        view = apply_jitter(images, jitter)
        directions = None
        if self.settings.projection:
            generator = torch_generator(self.settings.seed, Purpose.DIRECTIONS, *place)
            everyone = len(images) * self.distributed.size
            drawn = random_directions(everyone, self.backbone.dim, self.settings.projection, generator)
            directions = drawn.chunk(self.distributed.size)[self.distributed.rank].to(images.device)
        target = self._features(view)
        return self.learner.losses(upsampled, view, target, directions, jitter)

    def _update(self) -> None:
        self.distributed.average_([p.grad for p in self.parameters if p.grad is not None])
        if self.done < CAUTIOUS_STEPS:
            torch.nn.utils.clip_grad_norm_(self.parameters, CAUTIOUS_NORM)
        self.optimizer.step()
        self.done += 1


def feature_map(trunk: Trunk, name: str) -> Tensor:
    """Return the features of FEATURES[name] as a map (B, C, h, w), float32, neither L2- nor channel-normalised."""
    patches = FEATURES[name](trunk)  # (B, h*w, C)
    return patches.transpose(1, 2).reshape(*patches[:, 0].shape, *trunk.grid)


def _projected(tokens: Tensor, proj: Tensor | None) -> Tensor:
    return (tokens if proj is None else tokens @ proj).float()
