"""The part of the Python API that computes: segment images, run the benchmark, draw figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import pandas as pd

from bench.config import load_config
from bench.data.cards import Card, load_card
from bench.data.vocabularies import read_vocabulary
from bench.demo.config import DEMO, with_backbone
from bench.demo.datasets import demo_data_root
from bench.demo.words import unknown_words
from bench.errors import BenchError, did_you_mean
from bench.evaluation.bias import bias_of
from bench.evaluation.maps import label_maps
from bench.evaluation.models import ModelCache
from bench.evaluation.names import OWN_PROTOCOL, choose_datasets, listed
from bench.evaluation.plan import DatasetJobs
from bench.evaluation.run import PlannedRun, RunSpec, planned
from bench.evaluation.runner import Progress
from bench.inference.predictor import Predictor
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import PLAIN, Style
from bench.models.text import Vocabulary
from bench.registry import find_method, load_methods
from bench.report.figure import Block, Example, draw_blocks
from bench.report.frames import per_image, scores
from bench.report.paper_figures import Bias, draw_bias, draw_radar
from bench.report.scores import Collection, collect
from bench.runtime.device import choose_device, default_batch
from bench.settings import ResizeRule, Settings

Classes: TypeAlias = str | Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class SegmenterOptions:
    """How `load_segmenter` departs from the row.

    backbone: a name of benchmark.yaml, an open_clip model NAME[:TAG], its config JSON, or "demo". checkpoint: its
    weights. upsamplers: files by name of benchmark.yaml. device, dtype, batch: as in `bench run`; None: chosen.
    long_side: of the network's input, pixels. native: the image's own resolution instead, strip by strip;
    None: of GeoTIFFs. debias: λ.
    threshold: pixels less probable become class `background`; None: those of the row on the dataset, of own words 0.
    plugins: files or folders of methods. config: another
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
    threshold: float | None = None
    background: int | None = None
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
        return predictor(method, load_card(dataset), chosen)
    if isinstance(classes, str):
        vocabulary = Vocabulary.parse(classes)
    else:
        vocabulary = Vocabulary.of([[entry] if isinstance(entry, str) else entry for entry in classes or ()])
    return predictor(method, vocabulary, chosen)


def predictor(method: str, classes: Card | Vocabulary, options: SegmenterOptions) -> Predictor:
    """Load what `load_segmenter` and `bench predict` need: a row with the words of a dataset, or with own ones."""
    config, methods = with_backbone(load_config(options.config), options.backbone), load_methods(list(options.plugins))
    row = config.row(method)
    defaults = find_method(row.method, methods).defaults
    given = {name: getattr(options, name) for name in ("debias", "threshold", "background")}
    given["resize"] = ResizeRule(long_side=options.long_side) if options.long_side else None
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(classes, Card):
        settings = config.settings_of(method, classes, defaults).model_copy(update=given)
        vocabulary = Vocabulary.of(config.words(classes, settings.vocabulary))
    else:
        settled = config.resolve(row, defaults, {}) | {"threshold": 0.0, "background": 0} | given
        settings, vocabulary = Settings(row=method, dataset="-", method=row.method, **settled), classes
    if not 0 <= settings.background < vocabulary.size:
        raise BenchError(f"background {settings.background}: there are {vocabulary.size} classes, numbered from 0")
    if not 0 <= settings.threshold <= 1:
        raise BenchError(f"threshold {settings.threshold:g}: a probability between 0 and 1 is needed")
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
    "results/demo-run"). progress: called after each image with how far the run is. options: `demo`, `backbone`,
    `config`, and the fields of `bench.evaluation.run.RunSpec`. What is stored and up to date is not computed again.
    Raises BenchError for what does not exist or does not fit; a cell that fails is stored with its reason and named in
    `failures`.
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
    protocols: Sequence[str] = (),
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
    if protocols:
        unknown = [name for name in protocols if name not in (OWN_PROTOCOL, *loaded.protocols)]
        if unknown:
            hint = did_you_mean(unknown[0], [OWN_PROTOCOL, *loaded.protocols])
            raise BenchError(f"--protocol: unknown protocol '{unknown[0]}'; {hint}")
        options["sweeps"] = [*options.get("sweeps", ()), f"protocol={','.join(protocols)}"]
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
    A beats B most. options: as of `run`. Label maps that a run kept are shown as they are, others are computed now;
    nothing is stored.
    """
    spec = run_spec(datasets=[dataset], methods=listed(methods), **options)
    with planned(spec, writes=False) as plan:
        (jobs,) = plan.datasets
        if gains is not None:
            samples = _largest_gains(spec, dataset, gains, count)
        block = _block(plan, jobs, samples, count)
    draw_blocks([block], Path(out), _note(spec))
    return Path(out)


PAPER_FIGURES: Final = {
    1: (),  # a radar of stored results: rows of Table 1 that are there
    4: ("msa+nearest", "msa+jbu-one", "msa+rec-image"),
    5: ("segearth-ov",),
    6: ("maskclip", "sclip", "gem", "clearclip", "segearth-ov"),
}


def paper_figure(
    number: int,
    out: str | Path,
    methods: str | Sequence[str] | None = None,
    samples: Sequence[str | int] | None = None,
    **options: Any,
) -> Path:
    """Draws Figure 1, 4, 5 or 6 of the SegEarth-OV paper; returns the file.

    1: a radar over all datasets, from stored results. 4: with and without the image reconstruction loss, 5: before and
    after the global bias is alleviated, both on OpenEarthMap; 6: methods on OpenEarthMap, UDD5 and WHU Aerial, one
    sample each. methods: other rows. samples: of OpenEarthMap. Raises BenchError for another number and for what is
    not there.
    """
    if number not in PAPER_FIGURES:
        raise BenchError(f"paper-{number}: figures 1, 4, 5 and 6 of the paper can be drawn")
    if number == 1:
        return _radar(Path(out), listed(methods), options)
    rows = listed(methods) or list(PAPER_FIGURES[number])
    datasets = ["openearthmap", *(["udd5", "whu_aerial"] if number == 6 else [])]
    spec = run_spec(datasets=datasets, methods=rows, **options)
    with planned(spec, writes=False) as plan:
        if number == 5:
            numbers = _numbers(plan.datasets[0], samples, 2)
            biases = [Bias(*bias_of(plan.run, plan.datasets[0], one)) for one in numbers]
        else:
            blocks = [_block(plan, jobs, samples if jobs is plan.datasets[0] else None, 1) for jobs in plan.datasets]
    if number == 5:
        draw_bias(biases, Path(out), _note(spec))
    else:
        draw_blocks(blocks, Path(out), _note(spec))
    return Path(out)


def _radar(out: Path, rows: Sequence[str] | None, options: Mapping[str, Any]) -> Path:
    folder = Path(options.get("results") or ("results/demo-run" if options.get("demo") else "results"))
    config = load_config(options.get("config"))
    (collection, *_) = collect(folder, config, 1)
    if not collection.scores:
        raise BenchError(f"{folder}: holds no results; give another with --results, or run first")
    wanted = rows or [row for row in config.tables["1"].rows if any(row == name for name, _ in collection.scores)]
    shared = [name for name in config.default_datasets if all(_complete(collection, row, name) for row in wanted)]
    scores = {
        collection.scores[row, shared[0]].label: {name: collection.scores[row, name].value for name in shared}
        for row in wanted
        if shared
    }
    draw_radar(scores, out, DEMO_NOTE if "demo" in collection.name else "")
    return out


def _complete(collection: Collection, row: str, dataset: str) -> bool:
    found = collection.scores.get((row, dataset))
    return found is not None and found.complete


DEMO_NOTE: Final = "demo: rendered scenes and a tiny CLIP; says nothing about the methods"


def _note(spec: RunSpec) -> str:
    return DEMO_NOTE if spec.demo else ""


def _block(plan: PlannedRun, jobs: DatasetJobs, samples: Sequence[str | int] | None, count: int) -> Block:
    examples = []
    for number in _numbers(jobs, samples, count):
        assert jobs.samples is not None
        sample = jobs.samples.read(number)
        examples.append(Example(sample.id, sample.image, sample.label, label_maps(plan.run, jobs, number)))
    return Block(examples, jobs.card, {job.settings.row: plan.run.label(job) for job in jobs.jobs})


def _numbers(jobs: DatasetJobs, samples: Sequence[str | int] | None, count: int) -> list[int]:
    """Which samples are drawn. BenchError where the data or a row's models are not there."""
    if jobs.samples is None:
        raise BenchError(jobs.missing or jobs.refused or f"{jobs.card.name}: no samples")
    if failed := [f"{job.settings.row}: {job.error}" for job in jobs.jobs if job.error]:
        raise BenchError("; ".join(failed))
    ids = list(jobs.samples.ids)
    return [_sample_number(sample, ids, jobs.card.name) for sample in (samples or range(min(count, len(ids))))]


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
