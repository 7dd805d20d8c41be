"""Settings that decide the outcome of a training, besides the images and the backbone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingConfig:
    """Defaults are taken from the released SimFeatUp code; docs/training.md lists where the paper differs.

    Attributes:
        feature: what is upsampled, a key of `bench.training.features.FEATURES`.
        kind, radius: of the upsampler.
        crop: side of the training crops in pixels, a multiple of the patch size.
        batch: images of a process in a step. jitters: transformed views of them in a step.
        image_loss: γ of eq. 5; 0 trains without CRN. lr: learning rate.
        projection: directions that features are compared along; 0 compares the features themselves.
        uncertainty: weigh the reconstruction by a predicted uncertainty.
        normalise: pixel statistics, a key of `bench.training.crops.STATISTICS`.
        reference_gradient: train as the released CUDA code did (`bench.training.released`).
        upsample_once: all jitters of a step share one pass of the upsampler and so its dropout.
        amp: bfloat16 arithmetic in the trained nets.
        seed: of all that is random.
    """

    feature: str = "x"
    kind: str = "jbu_one"
    radius: int = 5
    crop: int = 224
    batch: int = 4
    jitters: int = 5
    image_loss: float = 0.1
    lr: float = 1e-3
    projection: int = 30
    uncertainty: bool = True
    normalise: str = "imagenet"
    reference_gradient: bool = False
    upsample_once: bool = False
    amp: bool = False
    seed: int = 0
