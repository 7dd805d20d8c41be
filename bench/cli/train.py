"""``bench train upsampler``: SimFeatUp or FeatUp for a backbone of one's own."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from bench.cli.options import add_backbone_arguments, positive

_RADIUS = {"jbu_one": 5, "jbu_stack": 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["upsampler"], help="what to train")
    parser.add_argument(
        "--images", required=True, metavar="DIR", help="a folder of images of any kind, with its subfolders"
    )
    parser.add_argument("--images-list", metavar="FILE", help="take only these images: a path below DIR in each line")
    parser.add_argument("--out", required=True, metavar="DIR", help="where checkpoint, upsampler, log and pictures go")
    add_backbone_arguments(parser.add_argument_group("backbone (frozen, float32)"))
    _add_recipe(parser)
    _add_plan(parser)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe (defaults: the released SimFeatUp code)")
    group.add_argument(
        "--feature",
        choices=["x", "x-printed", "output", "maskclip"],
        default="x",
        help="what is upsampled: x (eq. 6: the last block's input; x-printed: without a layer norm), "
        "or FeatUp's output or maskclip",
    )
    group.add_argument(
        "--kind", choices=sorted(_RADIUS), default="jbu_one", help="JBU_One or FeatUp's JBU_Stack (jbu_one)"
    )
    group.add_argument(
        "--radius", type=positive, metavar="R", help="of the kernels: 5 is 11x11 (jbu_one: 5, jbu_stack: 3)"
    )
    group.add_argument("--batch", type=positive, default=4, metavar="N", help="images of each process in a step (4)")
    group.add_argument(
        "--crop", type=positive, default=224, metavar="N", help="side of the random crops in pixels (224)"
    )
    group.add_argument("--jitters", type=positive, default=5, metavar="N", help="transformed views in a step (5)")
    group.add_argument("--image-loss", type=_weight, default=0.1, metavar="G", help="γ of eq. 5; 0: without CRN (0.1)")
    group.add_argument("--lr", type=_rate, default=1e-3, metavar="LR", help="learning rate of NAdam (0.001)")
    group.add_argument(
        "--projection",
        type=_natural,
        default=30,
        metavar="N",
        help="random directions of eq. 3; 0: none (30)",
    )
    group.add_argument(
        "--uncertainty",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="weigh eq. 3 by a predicted uncertainty, as the released code does",
    )
    group.add_argument(
        "--normalise",
        choices=["imagenet", "clip"],
        default="imagenet",
        help="pixel statistics; inference has CLIP's (imagenet)",
    )
    group.add_argument(
        "--reference-gradient",
        action="store_true",
        help="gradients only through the kernel taps 0, 1, 4, 9 …, as in the released CUDA code",
    )
    group.add_argument("--upsample-once", action="store_true", help="one upsampling for all views of a step: faster")
    group.add_argument("--amp", action="store_true", help="bfloat16 in the trained nets")
    group.add_argument("--seed", type=_natural, default=0, metavar="N", help="of all that is random (0)")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, metavar="N", help="updates in all")
    length.add_argument("--epochs", type=positive, default=1, metavar="N", help="passes over the images (1)")
    group.add_argument("--workers", type=_natural, default=2, metavar="N", help="processes that read images (2)")
    group.add_argument(
        "--save-every",
        type=positive,
        default=100,
        metavar="N",
        help="steps between checkpoints and pictures (100)",
    )
    group.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")


def main(args: argparse.Namespace) -> int:
    from dataclasses import fields

    from bench.config import load_config
    from bench.demo.config import with_backbone
    from bench.evaluation.models import ModelCache
    from bench.runtime.device import choose_device
    from bench.runtime.distributed import init_distributed
    from bench.training.crops import find_images
    from bench.training.loop import RunLength, train
    from bench.training.settings import TrainingConfig

    images = find_images(Path(args.images), Path(args.images_list) if args.images_list else None)
    args.radius = args.radius or _RADIUS[args.kind]
    settings = TrainingConfig(**{field.name: getattr(args, field.name) for field in fields(TrainingConfig)})
    plan = RunLength(Path(args.out), args.steps, args.epochs, args.save_every, args.workers, args.resume)
    config = with_backbone(load_config(args.config), args.backbone)
    device = choose_device(args.device)
    checkpoint = Path(args.checkpoint) if args.checkpoint else None
    with init_distributed(device) as distributed:
        if distributed.is_main:
            print(f"{len(images.paths)} images below {args.images}; {images.others} other files passed over")
        backbone = ModelCache(config, {}, checkpoint, device=device).clip(config.protocol.backbone)
        train(backbone, images, settings, plan, distributed)
        if distributed.is_main:
            print(f"{plan.out}: use it with --upsampler-checkpoint {plan.out / 'upsampler.safetensors'}")
    return 0


def _natural(text: str) -> int:
    """Read a whole number from 0 on."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below zero")
    return number


def _weight(text: str) -> float:
    """Read a finite number from 0 on."""
    number = float(text)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return number


def _rate(text: str) -> float:
    """Read a finite number above 0."""
    number = _weight(text)
    if number == 0:
        raise argparse.ArgumentTypeError("a learning rate of 0 trains nothing")
    return number
