"""The part of the Python API that computes: segment images, run the benchmark."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import pandas as pd
from typing_extensions import TypedDict, Unpack

from bench.config import load_config
from bench.data.cards import Card, load_card
from bench.data.prepared import find_samples
from bench.demo.config import DEMO
from bench.demo.content import unknown_words
from bench.demo.datasets import demo_data_root
from bench.errors import BenchError, listed, writing
from bench.evaluation.dataset_run import Progress
from bench.evaluation.external import Predictions, score_predictions
from bench.evaluation.models import ModelCache, build_row, build_segmenters
from bench.evaluation.run import execute, failures, planned
from bench.inference.visualize import PLAIN, Style
from bench.maps.job import ALONE, Worker, make_maps
from bench.maps.plan import AskedScene, RowGroup, SceneJob, plan_maps
from bench.maps.predictor import Predictor
from bench.maps.spec import MapSpec, formats_of, map_bases
from bench.maps.stretch import levels_of
from bench.maps.view import scene_files
from bench.metrics import first_kept_bin
from bench.models.text import Vocabulary
from bench.paths import DEMO_RESULTS, Paths, each_path
from bench.paths import data_root as find_data_root
from bench.registry import find_method, load_methods
from bench.report.analysis import removals
from bench.report.frames import scores
from bench.report.scores import Score, scores_of
from bench.runtime.device import choose_device, default_batch
from bench.settings import IGNORED, ResizeRule, Settings
from bench.spec import ModelSpec, RunSpec, SegmenterOptions, about
from bench.store.store import Store

F = TypeVar("F", bound=Callable[..., Any])
Classes: TypeAlias = str | Sequence[str | Sequence[str]]


class ModelOptions(TypedDict, total=False):
    """Keywords for the fields of `ModelSpec`, for editors and type checkers; `spelled_out` shows them at run time."""

    config: str | Path | None
    backbone: str | None
    checkpoint: str | Path | None
    upsamplers: Mapping[str, str | Path] | Paths
    plugins: Paths
    device: str | None
    dtype: Literal["fp32", "tf32", "fp16", "bf16"]
    batch: int | Literal["auto"] | None


class SegmenterKeywords(ModelOptions, total=False):
    """Keywords for the fields of `SegmenterOptions`."""

    long_side: int | None
    native: bool | None
    debias: float | None
    threshold: float | None
    background: int | None


class MapKeywords(SegmenterKeywords, total=False):
    """Keywords for the fields of `MapSpec`."""

    bands: tuple[int, int, int] | str | None
    stretch: str | None
    gsd: float | None
    bounds: tuple[float, float, float, float] | str | None
    mask: str | Path | None
    format: str | Sequence[str]
    probabilities: Literal["8bit", "float16"] | None
    min_area: float
    simplify: float
    scores: str | Path | None
    blend: Literal["mean", "gaussian"]
    shard: tuple[int, int] | str | None


class RunOptions(ModelOptions, total=False):
    """Keywords for the fields of `RunSpec` but methods and datasets."""

    table: str | None
    options: str | Sequence[str]
    sweeps: str | Sequence[str]
    vocabularies: str | Sequence[str]
    protocols: str | Sequence[str]
    only: str | Sequence[str]
    data_root: str | Path | None
    cards: Paths
    layouts: Mapping[str, str] | str | Sequence[str]
    demo: bool
    results: str | Path | None
    limit: int | None
    shard: tuple[int, int] | str | None
    fresh: bool
    boundary: bool
    save_predictions: int
    allow_incomplete: bool
    workers: int | None
    time_limit: float | None


def spelled_out(options: type, spec: type[ModelSpec]) -> Callable[[F], F]:
    """Show ``**options`` of a function as keywords, with the documentation of the fields, where Python is asked for it.

    options: ModelOptions or one made of it, the keywords that the function passes on; spec: the model they are fields
    of.
    """

    def show(function: F) -> F:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        keywords, lines = [], []
        for name, annotation in options.__annotations__.items():
            kind = getattr(annotation, "__forward_arg__", annotation)
            default = spec.model_fields[name].get_default()
            keywords.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
            lines.append(f"    {name}: {about(spec, name)}")
        function.__signature__ = signature.replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
        function.__doc__ = "\n".join([(function.__doc__ or "").rstrip(), "", "    Options", "", *lines, "    "])
        return function

    return show


@spelled_out(SegmenterKeywords, SegmenterOptions)
def load_segmenter(
    method: str,
    classes: Classes | None = None,
    dataset: str | None = None,
    style: Style = PLAIN,
    cards: Paths = (),
    **options: Unpack[SegmenterKeywords],
) -> Predictor:
    """Load a method with its words; the result is called on images.

    method: a row or method, as `python -m bench methods` lists them. classes: "background; road; building, house" or a
    list whose entries are words or lists of synonyms; or dataset: a card, whose words, threshold and background are
    taken. style: of overlays that are written. cards: folders of further cards. Raises BenchError for what does not
    exist or does not fit.

    >>> segment = bench.load_segmenter("sclip+ours", "background; road; water", backbone="demo", device="cpu")
    >>> segment(np.zeros((64, 96, 3), np.uint8)).labels.shape
    (64, 96)
    """
    words = _words(classes, dataset, cards, "load_segmenter")
    return predictor(method, words, SegmenterOptions(**options), style)


def _words(classes: Classes | None, dataset: str | None, cards: Paths, where: str) -> Card | Vocabulary:
    """Return a dataset's card, or the words of own classes. where: they are given, for errors."""
    if (classes is None) == (dataset is None):
        raise BenchError(f"{where}: give either classes or dataset")
    if dataset is not None:
        return load_card(dataset, each_path(cards))
    if isinstance(classes, str):
        return Vocabulary.parse(classes)
    return Vocabulary.own([[entry] if isinstance(entry, str) else entry for entry in classes or ()])


@dataclass(frozen=True)
class Maps:
    """Maps of `predict`. files: each map in its first format. failures: a line for each scene that has none."""

    files: tuple[Path, ...]
    failures: tuple[str, ...]


@spelled_out(MapKeywords, MapSpec)
def predict(  # noqa: PLR0913 (each is a flag)
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    method: str | Sequence[str],
    classes: Classes | None = None,
    dataset: str | None = None,
    *,
    style: Style = PLAIN,
    cards: Paths = (),
    progress: Callable[[Progress], None] = lambda _: None,
    **options: Unpack[MapKeywords],
) -> Maps:
    """Make maps of scenes: ``python -m bench predict`` as a function.

    images: files, folders and patterns. out: a .tif, .png, .gpkg or .geojson, or a folder. method: one or several, as
    of `load_segmenter`, like classes, dataset and cards. style: colours of the classes, and how overlays look.
    progress: called after each batch of windows. Maps that are there are not made again, and one that was interrupted
    continues at its strip. Raises BenchError for what does not exist or does not fit; a scene that fails is named in
    `failures`, and the others are made.

    >>> made = bench.predict("scene.png", "made/", "clip", "road; water", backbone="demo", device="cpu", format="png")
    >>> [str(file) for file in made.files], made.failures
    (['made/scene.png'], ())
    """
    words = _words(classes, dataset, cards, "predict")
    spec = MapSpec(**{**options, "format": formats_of(str(out), options.get("format", ()))})
    sources = scene_files([str(one) for one in ([images] if isinstance(images, str | Path) else images)])
    methods = listed(method, "predict") or []
    jobs = map_jobs(sources, map_bases(str(out), sources), methods, words, spec, style, warnings.warn)
    failed = make_maps(jobs, spec, Worker(*(spec.shard or ALONE)), progress)
    return Maps(tuple(files.main for job in jobs for files in job.files.values() if files.is_there()), tuple(failed))


def map_jobs(  # noqa: PLR0913 (all that maps are made of)
    sources: Sequence[Path],
    bases: Sequence[Path],
    methods: Sequence[str],
    words: Card | Vocabulary,
    spec: MapSpec,
    style: Style,
    say: Callable[[str], None],
) -> list[SceneJob]:
    """Load what maps need, and look at all scenes. Arguments as of `plan_maps`, sources and bases as its scenes."""
    if len(set(methods)) < len(methods):
        raise BenchError(f"--method {','.join(methods)}: names a method twice; name each once")
    for what, count in (("image", len(sources)), ("method", len(methods))):
        if spec.scores and count > 1:
            raise BenchError(f"--scores {spec.scores}: holds one {what}, but {count} are given; run them one by one")
    view, levels = spec.view, levels_of(sources, spec.bands, spec.stretch)
    scenes = [
        AskedScene(source, base, replace(view, levels=own))
        for source, base, own in zip(sources, bases, levels, strict=True)
    ]
    rows = ready_rows(methods, words, spec)
    if style.colours is None and isinstance(words, Card):
        style = replace(style, colours=words.colours)
    if style.colours is not None and len(style.colours) != rows.vocabulary.size:
        count = rows.vocabulary.size
        raise BenchError(f"{len(style.colours)} colours for {count} classes; give one to each (--palette, --classes)")
    jobs = plan_maps(scenes, rows, spec, style, say)
    for base in bases:
        with writing(f"-o {base.parent}"):
            base.parent.mkdir(parents=True, exist_ok=True)
    return jobs


def predictor(
    method: str,
    classes: Card | Vocabulary,
    options: SegmenterOptions,
    style: Style = PLAIN,
) -> Predictor:
    """Load what `load_segmenter` needs: a row with the words of a dataset, or with own ones."""
    rows = ready_rows([method], classes, options, "load_segmenter")
    return Predictor(rows.segmenters[0], rows.settings[method], rows.vocabulary, options.native, style)


def ready_rows(
    methods: Sequence[str], classes: Card | Vocabulary, options: SegmenterOptions, where: str = "--method"
) -> RowGroup:
    """Load rows with the words of a dataset, or with own ones; those that can share windows do.

    where: the methods were named, for errors.
    """
    config, known = options.configuration, load_methods(options.plugins)
    entries = {name: options.row(name, where) for name in methods}
    given = {name: getattr(options, name) for name in ("debias", "threshold", "background")}
    given["resize"] = ResizeRule(long_side=options.long_side) if options.long_side else None
    given = {name: value for name, value in given.items() if value is not None}
    settings, vocabulary = {}, classes
    for name, row in entries.items():
        defaults = find_method(row.method, known).defaults
        if isinstance(classes, Card):
            settings[name] = config.settings_of(name, classes, defaults, row).model_copy(update=given)
            vocabulary = Vocabulary.of(config.words(classes, settings[name].vocabulary))
        else:
            settled = config.resolve(row, defaults, {"threshold": 0.0, "background": 0}) | given
            settings[name] = Settings(row=name, dataset="-", method=row.method, **settled)
        first_kept_bin(settings[name].threshold)  # fits, before models are loaded
    assert isinstance(vocabulary, Vocabulary)
    for one in settings.values():
        if vocabulary.size <= one.background != IGNORED:
            raise BenchError(f"--background {one.background}: there are {vocabulary.size} classes, numbered from 0")
    device = choose_device(options.device, options.dtype)
    models = ModelCache(config, known, options.checkpoint, options.upsamplers, device, options.dtype)
    backbones = {one.backbone for one in settings.values()}
    if DEMO in backbones and (strange := unknown_words(vocabulary.queries)):
        warnings.warn(
            f"the demo's CLIP has not learned {', '.join(strange)}: what it finds for them means nothing", stacklevel=2
        )
    ready = [(one, build_row(one, vocabulary.words, models)) for one in settings.values()]
    segmenters = build_segmenters(ready, models, options.batch or default_batch(device))
    return RowGroup(segmenters, settings, vocabulary)


@dataclass(frozen=True)
class Results:
    """Results of `run`: the cells of its rows and datasets, as they are stored now.

    scores: a frame as `bench.scores` gives it. failures: one line for each cell that is not complete, with the reason.
    missing: datasets that are not there. removed: one line for each class that a threshold keeps from being predicted.
    """

    folder: Path
    scores: pd.DataFrame
    failures: tuple[str, ...]
    missing: tuple[str, ...]
    removed: tuple[str, ...] = ()


@spelled_out(RunOptions, RunSpec)
def run(
    methods: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    **options: Unpack[RunOptions],
) -> Results:
    """Evaluate methods on datasets and store every result: ``python -m bench run`` as a function.

    methods, datasets: names, or one string with commas; None for all. progress: called after each image with how far
    the run is. What is stored and up to date is not computed again.
    Raises BenchError for what does not exist or does not fit; a cell that fails is stored with its reason and named in
    `failures`.

    >>> found = bench.run("clip,sclip", "wbs_si", demo=True, device="cpu")
    >>> list(found.scores.row), found.failures, found.missing
    (['clip', 'sclip'], (), ())
    """
    spec = RunSpec(methods=methods, datasets=datasets, **options)
    with planned(spec, report=progress) as plan:
        execute(plan)
        wanted = {(cell.row, dataset.card.name) for dataset in plan.datasets for cell in dataset.cells}
        removed = removals(cell for pair in sorted(wanted) if (cell := plan.store.cell(*pair)))
    stored = scores(spec.folder, spec.limit, spec.config, spec.cards)
    here = [pair in wanted for pair in zip(stored.row, stored.dataset, strict=True)] if len(stored) else []
    return Results(
        spec.folder, stored[here].reset_index(drop=True), tuple(failures(plan)), tuple(plan.missing), tuple(removed)
    )


def score(  # noqa: PLR0913 (each is a flag)
    folder: str | Path,
    dataset: str,
    row: str,
    *,
    label: str | None = None,
    pattern: str | None = None,
    as_labels: bool = False,
    layout: str | None = None,
    boundary: bool = False,
    results: str | Path | None = None,
    data_root: str | Path | None = None,
    cards: Paths = (),
    demo: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Score:
    """Count label maps that another program made and store them as a row: ``python -m bench score`` as a function.

    folder: of label maps, PNG, TIFF (class numbers or palette), npy or npz. label: of the row in tables. pattern: file
    name of a sample, as in "{id}_pred.png". as_labels: they hold the values or colours of the dataset's label files, in
    place of class numbers. layout: of the dataset, the first that is there otherwise. boundary: count
    boundary IoU as well. results: "results", of the demo "results/demo-run". demo: the dataset is the embedded demo's.
    progress: called with how many files of how many are counted. Raises BenchError for what is not there or does not
    fit.

    >>> bench.score("maps", "whu_aerial", "mine", data_root="data", results="results/scored").value
    1.0
    """
    folder, config, folders = Path(folder), load_config(), each_path(cards)
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder; give the folder of the label maps")
    if pattern is not None and "{id}" not in pattern:
        raise BenchError(f"--pattern {pattern}: has no {{id}}, which stands for the name of a sample")
    if row.startswith("(") or not row.isprintable() or not row.strip() or listed(row, "--row") != [row]:
        raise BenchError(f"--row {row!r}: is no name; give letters and digits, no comma, no bracket at the start")
    if row in config.rows or config.row_group(row) != (row,):
        raise BenchError(f"--row {row}: is a row of benchmark.yaml, or a group of rows; choose another name")
    card, root = load_card(dataset, folders), find_data_root(data_root)
    if demo:
        card, root = card.model_copy(update={"expected_count": None}), demo_data_root([card.name])
    samples = find_samples(card, root, layout)
    store, total = Store(results or (DEMO_RESULTS if demo else "results"), demo=demo), len(samples.sources)
    with store.lock():
        predictions = Predictions(folder, pattern, as_labels)
        score_predictions(store, samples, predictions, row, label, lambda done: progress(done, total), boundary)
    name = samples.card.name
    return scores_of(store, config, cards=folders, datasets=[name])[row, name]
