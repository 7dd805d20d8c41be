"""A whole training: images in; checkpoints, log, pictures and the upsampler out."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from bench.errors import BenchError
from bench.models.backbone import Backbone
from bench.runtime.atomic import write_atomic
from bench.runtime.device import is_out_of_memory, peak_memory
from bench.runtime.distributed import Distributed
from bench.training.checkpoints import restore_checkpoint, save_checkpoint, save_upsampler
from bench.training.crops import Crops, ImageList, Schedule, load_crops
from bench.training.log import Log, LogRecord, feature_picture
from bench.training.spec import RunLength, TrainingConfig
from bench.training.trainer import StepLosses, Trainer

CHECKPOINT = "last.ckpt"
UPSAMPLER = "upsampler.safetensors"


def train(
    backbone: Backbone, images: ImageList, settings: TrainingConfig, plan: RunLength, distributed: Distributed
) -> Trainer:
    """Trains an upsampler; into `plan.out` go last.ckpt, upsampler.safetensors, log.csv and pictures/.

    Raises BenchError for too few or unreadable images, an `out` that holds another training, too little memory,
    or a loss that is no number.
    """
    schedule = Schedule(len(images.paths), settings.batch, distributed.size, settings.seed)
    checkpoint = plan.out / CHECKPOINT
    if checkpoint.exists() and not plan.resume:
        raise BenchError(f"--out {plan.out}: already holds {CHECKPOINT}; resume with --resume, or give another folder")
    trainer = Trainer(backbone, settings, distributed)
    fingerprint = hashlib.sha256("\n".join(path.name for path in images.paths).encode()).hexdigest()
    if plan.resume:
        restore_checkpoint(checkpoint, trainer, fingerprint)
    stop = plan.steps or plan.epochs * schedule.steps_per_epoch
    crops = Crops(images.paths, settings.crop, settings.seed)
    batches = schedule.batches(trainer.done, stop, distributed.rank)
    recorder = _Recorder(trainer, crops, plan.out, stop, schedule.steps_per_epoch) if distributed.is_main else None
    for crop in load_crops(crops, batches, plan.workers):
        for line in crop.unreadable:
            warnings.warn(f"{line}; another image stands in", stacklevel=2)
        losses = _step(trainer, crop.pixels)
        if not math.isfinite(losses.total):
            raise BenchError(
                f"step {trainer.done}: the loss is {losses.total}; take a lower --lr, or train without --amp"
            )
        if recorder is not None:
            recorder.record(losses)
            if trainer.done % plan.save_every == 0 or trainer.done == stop:
                recorder.picture()  # first: a training that resumes from the checkpoint makes no earlier ones
                save_checkpoint(checkpoint, trainer, fingerprint)
    if recorder is not None:
        recorder.bar.close()
        save_upsampler(plan.out / UPSAMPLER, trainer)
    return trainer


def _step(trainer: Trainer, pixels: Tensor) -> StepLosses:
    try:
        return trainer.step(pixels)
    except Exception as error:
        if is_out_of_memory(error):
            raise BenchError(
                f"step {trainer.done + 1}: out of memory on {trainer.backbone.device} with --batch "
                f"{trainer.settings.batch} and --crop {trainer.settings.crop}; take a smaller one"
            ) from error
        raise


class _Recorder:
    """Shows and writes how the training goes; only the leading process has one."""

    def __init__(self, trainer: Trainer, crops: Crops, out: Path, stop: int, steps_per_epoch: int) -> None:
        self.trainer = trainer
        self.steps_per_epoch = steps_per_epoch
        self.pictures = out / "pictures"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.log = Log(out / "log.csv", trainer.done)
        self.bar = tqdm(total=stop, initial=trainer.done, unit="step", dynamic_ncols=True)
        self.sample = crops[0, 0].pixels  # the same in all pictures
        self.last = time.perf_counter()
        if not trainer.done:
            self.picture()

    def record(self, losses: StepLosses) -> None:
        now = time.perf_counter()
        epoch = (self.trainer.done - 1) // self.steps_per_epoch + 1
        peak = peak_memory(self.trainer.backbone.device) / 2**30
        self.log.write(
            LogRecord(self.trainer.done, epoch, *losses, seconds=round(now - self.last, 3), peak_gib=round(peak, 2))
        )
        self.last = now
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in losses._asdict().items()})
        self.bar.update()

    def picture(self) -> None:
        """Features before and after the upsampler as it is now."""
        before, after = self.trainer.preview(self.sample[None])
        picture = feature_picture(self.sample.numpy(), before, after)
        write_atomic(self.pictures / f"step_{self.trainer.done:06d}.png", picture)
