"""All that `bench train` asks for, checked once. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.spec import Positive, Spec


class TrainingConfig(Spec):
    """All that decides the outcome of a training besides images and backbone.

    Defaults are the released SimFeatUp code's; docs/training.md lists where the paper differs.
    """

    feature: Literal["x", "x-printed", "output", "maskclip"] = "x"
    """What is upsampled: x (eq. 6: the last block's input; x-printed: without a layer norm), or FeatUp's output or
    maskclip (x)."""
    kind: Literal["jbu_one", "jbu_stack"] = "jbu_one"
    """JBU_One or FeatUp's JBU_Stack (jbu_one)."""
    radius: Positive = 5
    """Of the kernels: 5 is 11x11 (jbu_one: 5, jbu_stack: 3)."""
    batch: Positive = 4
    """Images of each process in a step (4)."""
    crop: Positive = 224
    """Side of the random crops in pixels, a multiple of the patch size (224)."""
    jitters: Positive = 5
    """Transformed views in a step (5)."""
    image_loss: float = Field(0.1, ge=0)
    """γ of eq. 5; 0: without CRN (0.1)."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of NAdam (0.001)."""
    projection: int = Field(30, ge=0)
    """Random directions of eq. 3; 0: none (30)."""
    uncertainty: bool = True
    """Weigh eq. 3 by a predicted uncertainty, as the released code does."""
    normalise: Literal["imagenet", "clip"] = "imagenet"
    """Pixel statistics; inference has CLIP's (imagenet)."""
    reference_gradient: bool = False
    """Gradients only through the kernel taps 0, 1, 4, 9 …, as in the released CUDA code."""
    upsample_once: bool = False
    """One upsampling, and so one dropout, for all views of a step: faster."""
    amp: bool = False
    """bfloat16 in the trained nets."""
    seed: int = Field(0, ge=0)
    """Of all that is random (0)."""

    @model_validator(mode="before")
    @classmethod
    def _radius_of_kind(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"radius": 3 if values.get("kind") == "jbu_stack" else 5, **values}


class RunLength(Spec):
    """Where a training goes to, and how far; none of it changes what a step does."""

    out: Path
    """Where checkpoint, upsampler, log and pictures go."""
    steps: Positive | None = None
    """Updates in all."""
    epochs: Positive = 1
    """Passes over the images (1)."""
    workers: int = Field(2, ge=0)
    """Processes that read images (2)."""
    save_every: Positive = 100
    """Steps between checkpoints and pictures (100)."""
    resume: bool = False
    """Continue from the checkpoint in --out."""
