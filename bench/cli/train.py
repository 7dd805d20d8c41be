"""``bench train upsampler``: SimFeatUp or FeatUp for a backbone of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import add_backbone_arguments, add_demo_backbone, add_fields
from bench.spec import ModelSpec
from bench.training.spec import RunLength, TrainingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["upsampler"], help="what to train")
    parser.add_argument(
        "--images", required=True, metavar="DIR", help="a folder of images of any kind, with its subfolders"
    )
    parser.add_argument("--images-list", metavar="FILE", help="take only these images: a path below DIR in each line")
    parser.add_argument("--out", required=True, metavar="DIR", help="where checkpoint, upsampler, log and pictures go")
    add_backbone_arguments(parser.add_argument_group("backbone (frozen, float32)"))
    add_demo_backbone(parser)
    group = parser.add_argument_group("recipe (defaults: the released SimFeatUp code)")
    add_fields(group, TrainingConfig, feature="x|x-printed|output|maskclip", kind="jbu_one|jbu_stack", radius="R")
    add_fields(group, TrainingConfig, batch="N", crop="N", jitters="N", image_loss="G", lr="LR", projection="N")
    group.add_argument(
        "--uncertainty",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="weigh eq. 3 by a predicted uncertainty, as the released code does",
    )
    add_fields(group, TrainingConfig, normalise="imagenet|clip", reference_gradient=None, upsample_once=None)
    add_fields(group, TrainingConfig, amp=None, seed="N")
    group = parser.add_argument_group("run")
    add_fields(group.add_mutually_exclusive_group(), RunLength, steps="N", epochs="N")
    add_fields(group, RunLength, workers="N", save_every="N", resume=None)


def main(args: argparse.Namespace) -> int:
    settings, plan, models = TrainingConfig.from_cli(args), RunLength.from_cli(args), ModelSpec.from_cli(args)

    from bench.evaluation.models import ModelCache
    from bench.runtime.device import choose_device
    from bench.runtime.distributed import init_distributed
    from bench.training.crops import find_images
    from bench.training.loop import train

    images = find_images(Path(args.images), Path(args.images_list) if args.images_list else None)
    config, device = models.configuration, choose_device(models.device)
    with init_distributed(device) as distributed:
        if distributed.is_main:
            print(f"{len(images.paths)} images below {args.images}; {images.others} other files passed over")
        backbone = ModelCache(config, {}, models.checkpoint, device=device).clip(config.protocol.backbone)
        train(backbone, images, settings, plan, distributed)
        if distributed.is_main:
            print(f"{plan.out}: use it with --upsampler-checkpoint {plan.out / 'upsampler.safetensors'}")
    return 0
