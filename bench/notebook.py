"""The part of the Python API that computes: segment images, run the benchmark, draw figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from bench.config import load_config
from bench.data.cards import load_card
from bench.data.vocabularies import read_vocabulary
from bench.demo.clip.words import unknown_words
from bench.demo.config import DEMO, with_backbone
from bench.demo.datasets import demo_data_root
from bench.errors import BenchError, did_you_mean
from bench.evaluation.models import ModelCache
from bench.evaluation.names import choose_datasets, listed
from bench.evaluation.run import RunSpec, planned
from bench.evaluation.runner import Progress, label_maps
from bench.inference.predictor import Predictor
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import PLAIN, Style
from bench.models.text import Vocabulary
from bench.registry import find_method, load_methods
from bench.report.figure import Example, draw
from bench.report.frames import per_image, scores
from bench.runtime.device import choose_device, default_batch
from bench.settings import Settings

Classes: TypeAlias = str | Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class SegmenterOptions:
    """How `load_segmenter` departs from the row.

    backbone: a name of benchmark.yaml, an open_clip model NAME[:TAG], its config JSON, or "demo". checkpoint: its
    weights. upsamplers: files by name of benchmark.yaml. device, dtype, batch: as in `bench run`; None: chosen.
    long_side: of the network's input, pixels. native: the image's own resolution instead, strip by strip;
    None: of GeoTIFFs. debias: λ.
    threshold: pixels less probable become class `background`. plugins: files or folders of methods. config: another
    benchmark.yaml. style: of overlays that are written.
    """

    backbone: str | None = None
    checkpoint: str | Path | None = None
    upsamplers: Mapping[str, Path] = field(default_factory=dict)
    device: str | None = None
    dtype: str = "fp32"
    batch: int | None = None
    long_side: int | None = None
    native: bool | None = False
    debias: float | None = None
    threshold: float = 0.0
    background: int = 0
    plugins: Sequence[str | Path] = ()
    config: str | Path | None = None
    style: Style = PLAIN


def load_segmenter(
    method: str,
    classes: Classes | None = None,
    dataset: str | None = None,
    **options: object,
) -> Predictor:
    """A method with its words, ready to be called on images: `load_segmenter("sclip+ours", ["road", "water"])(image)`.

    method: a row or method, as `python -m bench methods` lists them. classes: "background; road; building, house" or a
    list whose entries are words or lists of synonyms; or dataset: a card, whose words, threshold and background are
    taken. options: of `SegmenterOptions`. Raises BenchError for what does not exist or does not fit.
    """
    known = SegmenterOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise BenchError(f"load_segmenter: unknown option '{name}'; {did_you_mean(name, known)}")
    chosen = SegmenterOptions(**options)  # type: ignore[arg-type]
    if (classes is None) == (dataset is None):
        raise BenchError("load_segmenter: give either classes or dataset")
    if dataset is not None:
        card = load_card(dataset)
        words: Sequence[Sequence[str]] = card.vocabularies[load_config(chosen.config).protocol.vocabulary]
        options = {"threshold": card.threshold, "background": card.background} | options
        chosen = SegmenterOptions(**options)  # type: ignore[arg-type]
        vocabulary = Vocabulary.of(words)
    elif isinstance(classes, str):
        vocabulary = Vocabulary.parse(classes)
    else:
        vocabulary = Vocabulary.of([[entry] if isinstance(entry, str) else entry for entry in classes or ()])
    return predictor(method, vocabulary, chosen)


def predictor(method: str, vocabulary: Vocabulary, options: SegmenterOptions) -> Predictor:
    """What `load_segmenter` and `bench predict` load."""
    if not 0 <= options.background < vocabulary.size:
        raise BenchError(f"background {options.background}: there are {vocabulary.size} classes, numbered from 0")
    if not 0 <= options.threshold <= 1:
        raise BenchError(f"threshold {options.threshold}: a probability between 0 and 1 is needed")
    config, methods = with_backbone(load_config(options.config), options.backbone), load_methods(list(options.plugins))
    row = config.row(method)
    defaults = find_method(row.method, methods).defaults
    given = {"debias": options.debias, "resize": {"long_side": options.long_side} if options.long_side else None}
    settled = config.resolve(row, defaults, {}, {key: value for key, value in given.items() if value is not None})
    settled |= {"threshold": options.threshold, "background": options.background}
    settings = Settings(row=method, dataset="-", method=row.method, **settled)
    device = choose_device(options.device, options.dtype)
    checkpoint = Path(options.checkpoint) if options.checkpoint else None
    models = ModelCache(config, methods, checkpoint, options.upsamplers, device, options.dtype)
    if settings.backbone == DEMO and (strange := unknown_words(vocabulary.queries)):
        warnings.warn(
            f"the demo's CLIP has not learned {', '.join(strange)}: what it finds for them means nothing", stacklevel=2
        )
    variant, _ = models.variant(settings, vocabulary.words)
    backbone = models.backbone(settings.backbone)
    batch = options.batch or default_batch(device)
    segmenter = Segmenter(backbone, [variant], settings.window, settings.stride, batch)
    return Predictor(segmenter, settings, vocabulary, options.native, options.style)


@dataclass(frozen=True)
class Results:
    """What `run` leaves: the cells of its rows and datasets, as they are stored now.

    scores: a frame as `bench.scores` gives it. failures: one line for each cell that is not complete, with the reason.
    missing: datasets that are not there.
    """

    folder: Path
    scores: pd.DataFrame
    failures: tuple[str, ...]
    missing: tuple[str, ...]


def run(
    methods: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    *,
    results: str | Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    **options: Any,
) -> Results:
    """Evaluates methods on datasets and stores every result: ``python -m bench run`` as a function.

    methods, datasets: names, or one string with commas; None for all. results: folder (default: "results", of the demo
    "results/demo-run"). progress: told after each image how far the run is. options: `demo`, `backbone`, `config`, and
    the fields of `bench.evaluation.run.RunSpec`. What is stored and up to date is not computed again. Raises BenchError
    for what does not exist or does not fit; a cell that fails is stored with its reason and named in `failures`.
    """
    spec = run_spec(methods=listed(methods), datasets=listed(datasets), results=results, **options)
    with planned(spec, report=progress) as plan:
        plan.execute()
        wanted = {(job.settings.row, dataset.card.name) for dataset in plan.datasets for job in dataset.jobs}
    stored = scores(spec.results, spec.limit)
    here = [pair in wanted for pair in zip(stored.row, stored.dataset, strict=True)] if len(stored) else []
    return Results(spec.results, stored[here].reset_index(drop=True), tuple(plan.failures()), tuple(plan.missing))


def run_spec(
    *,
    demo: bool = False,
    backbone: str | None = None,
    config: str | Path | None = None,
    vocabularies: Sequence[str | Path] = (),
    **options: Any,
) -> RunSpec:
    """The spec of a run on a backbone, or of the demo, whose data are written where they are not there yet."""
    known = RunSpec.__dataclass_fields__
    for name in options:
        if name not in known:
            raise BenchError(f"run: unknown option '{name}'; {did_you_mean(name, known)}")
    if demo:
        for name, value in {"backbone": backbone, **options}.items():
            if name in ("backbone", "checkpoint", "data_root") and value:
                raise BenchError(f"--demo has a backbone and data of its own; leave --{name.replace('_', '-')} out")
    loaded = with_backbone(load_config(config), DEMO if demo else backbone)
    if vocabularies:
        names = []
        for vocabulary in vocabularies:
            if str(vocabulary).endswith((".yaml", ".yml")):
                read = read_vocabulary(Path(vocabulary))
                loaded = loaded.model_copy(update={"vocabularies": {**loaded.vocabularies, read.name: read.words}})
                names.append(read.name)
            else:
                names.append(str(vocabulary))
        options["sweeps"] = [*options.get("sweeps", ()), f"vocabulary={','.join(names)}"]
    if demo:
        names, _ = choose_datasets(loaded, options.get("datasets"), options.get("table"))
        options["data_root"] = demo_data_root(names)
    if options.get("checkpoint"):
        options["checkpoint"] = Path(options["checkpoint"])
    folder = Path(options.pop("results", None) or ("results/demo-run" if demo else "results"))
    return RunSpec(config=loaded, demo=demo, results=folder, **options)


def figure(
    dataset: str,
    methods: str | Sequence[str],
    out: str | Path,
    samples: Sequence[str | int] | None = None,
    gains: tuple[str, str] | None = None,
    count: int = 1,
    **options: Any,
) -> Path:
    """Draws image | ground truth | methods for some samples of a dataset, as .png or .pdf; returns the file.

    samples: names or numbers (default: the first `count`). gains: (A, B), two stored rows: the `count` samples on which
    A beats B most. options: as of `run`. What is shown is computed now, from the images; nothing is stored.
    """
    spec = run_spec(datasets=[dataset], methods=listed(methods), **options)
    with planned(spec, writes=False) as plan:
        (jobs,) = plan.datasets
        if jobs.samples is None:
            raise BenchError(jobs.missing or jobs.refused or f"{dataset}: no samples")
        if failed := [f"{job.settings.row}: {job.error}" for job in jobs.jobs if job.error]:
            raise BenchError("; ".join(failed))
        ids = list(jobs.samples.ids)
        if gains is not None:
            samples = _largest_gains(spec, dataset, gains, count)
        chosen = [_sample_number(sample, ids, dataset) for sample in (samples or range(min(count, len(ids))))]
        examples = []
        for number in chosen:
            sample = jobs.samples.read(number)
            examples.append(Example(sample.id, sample.image, sample.label, label_maps(plan.run, jobs, number)))
        labels = {job.settings.row: plan.run.label(job) for job in jobs.jobs}
    note = "demo: rendered scenes and a tiny CLIP; says nothing about the methods" if spec.demo else ""
    draw(examples, jobs.card, labels, Path(out), note)
    return Path(out)


def _largest_gains(spec: RunSpec, dataset: str, rows: tuple[str, str], count: int) -> list[str]:
    """Names of the samples on which the first row beats the second most, by the stored scores."""
    first, second = (per_image(row, dataset, spec.results, spec.limit).set_index("id").score for row in rows)
    return list((first - second).dropna().sort_values(ascending=False, kind="stable").index[:count])


def _sample_number(sample: str | int, ids: Sequence[str], dataset: str) -> int:
    if isinstance(sample, int) or (sample.isdigit() and sample not in ids):
        if int(sample) >= len(ids):
            raise BenchError(f"--samples {sample}: {dataset} has {len(ids)} samples, numbered from 0")
        return int(sample)
    if sample not in ids:
        raise BenchError(f"--samples {sample}: {dataset} has no such sample; {did_you_mean(sample, ids)}")
    return ids.index(sample)
