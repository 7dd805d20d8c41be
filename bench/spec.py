"""All that a command or a call asks for, checked once, where it is made. Imports no torch.

The command line and Python make the same objects: a flag of ``python -m bench run`` and a keyword of `bench.run` are
a field of `RunSpec`, and what comes after it checks none of them again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from typing_extensions import Self

from bench.config import Config, RowEntry, load_config
from bench.data.cards import Card, card_names, load_card
from bench.data.vocabularies import VocabularyFile, read_vocabulary
from bench.demo.config import DEMO, with_backbone
from bench.errors import BenchError, check_known, did_you_mean, listed
from bench.paths import DEMO_RESULTS, Paths, existing_root
from bench.registry import declared_methods
from bench.settings import Model, Pixels, Probability

OWN_PROTOCOL: Final = "cvpr2025"  # of `protocol:` in benchmark.yaml, which needs no name
FLAGS: Final = {
    "plugins": "--plugin",
    "upsamplers": "--upsampler-checkpoint",
    "options": "--option",
    "sweeps": "--sweep",
    "layouts": "--layout",
    "protocols": "--protocol",
    "vocabularies": "--vocabulary",
}
"""Flags that are not called like their field."""
MOST_ROWS: Final = 1000
STATES: Final = ("missing", "failed", "stale")  # that a run can be restricted to


def flag(field: str) -> str:
    """Name the flag that sets a field.

    >>> flag("upsamplers"), flag("data_root")
    ('--upsampler-checkpoint', '--data-root')
    """
    return FLAGS.get(field, f"--{field.replace('_', '-')}")


def _listed(names: Any, field: ValidationInfo) -> list[str] | None:
    return listed(names, flag(str(field.field_name)))


def _many(given: Any) -> Any:
    """Put a list around a single value."""
    return [given] if isinstance(given, str | Path) else given


def _named(flags: Mapping[str, Any] | Paths, unnamed: str = "") -> dict[str, Any]:
    """Read flags NAME=VALUE; a mapping passes through. unnamed: the name of a flag without one."""
    if isinstance(flags, Mapping):
        return dict(flags)
    parts = [str(flag).rpartition("=") for flag in _many(flags)]
    return {name if equals else unnamed: value for name, equals, value in parts}


def _upsamplers(flags: Mapping[str, Any] | Paths) -> dict[str, Path]:
    return {name: Path(file).expanduser() for name, file in _named(flags, unnamed="simfeatup").items()}


def _shard(given: Any) -> Any:
    if isinstance(given, str) and not re.fullmatch(r"\d+/\d+", given):
        raise ValueError("I/N is needed, as in 0/4")
    return given.split("/") if isinstance(given, str) else given


Files: TypeAlias = Annotated[tuple[Path, ...], BeforeValidator(_many)]
Texts: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_many)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Layouts: TypeAlias = Annotated[dict[str, str], BeforeValidator(_named)]
Upsamplers: TypeAlias = Annotated[dict[str, Path], BeforeValidator(_upsamplers)]
Shard: TypeAlias = Annotated[tuple[int, int], BeforeValidator(_shard)]  # I/N
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Batch: TypeAlias = Annotated[Positive | None, BeforeValidator(lambda text: None if text == "auto" else text)]


def about(spec: type[BaseModel], field: str) -> str:
    """Documentation of a field, in one line."""
    return " ".join((spec.model_fields[field].description or "").split())


class Spec(Model):
    """Options of a command; raises BenchError, in one line, for the first that is unknown or wrong."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def from_cli(cls, args: argparse.Namespace) -> Self:
        """Make the spec that a command line asks for."""
        return cls(**cls.given(args))

    @classmethod
    def given(cls, args: argparse.Namespace) -> dict[str, Any]:
        """Collect the fields that a command line sets."""
        return {name: value for name, value in vars(args).items() if name in cls.model_fields and value is not None}

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, make: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return make(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                raise BenchError(f"unknown option '{name}'; {did_you_mean(name, cls.model_fields)}") from None
            raise BenchError(f"{flag(name)} {values[name]}: {first['msg'].removeprefix('Value error, ')}") from None


class ModelSpec(Spec):
    """Which models run, and where: the part that `run`, `predict`, `figure` and `templates` share."""

    config: Path | None = None
    """A file laid over benchmark.yaml."""
    backbone: str | None = None
    """A name of benchmark.yaml, an open_clip model NAME[:TAG], its config JSON, or `demo` (the protocol's)."""
    checkpoint: Path | None = None
    """Weights of that backbone: safetensors or torch file."""
    upsamplers: Upsamplers = Field({})
    """Weights of upsamplers, by their name in benchmark.yaml; FILE alone: of simfeatup; may be repeated."""
    plugins: Files = ()
    """A file of methods, or a folder of such files; may be repeated."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (cuda where there is one)."""
    dtype: Literal["fp32", "tf32", "fp16", "bf16"] = "fp32"
    """Precision of the image tower's products; tf32: of all products, on a GPU (fp32)."""
    batch: Batch = None
    """Windows at once, halved where memory runs out (auto: 4 on a CPU, on a GPU what fits)."""

    @model_validator(mode="after")
    def _files_exist(self) -> Self:
        json = Path(self.backbone) if self.backbone and self.backbone.endswith(".json") else None
        for name, file in {"checkpoint": self.checkpoint, "backbone": json}.items():
            if file is not None and not file.is_file():
                raise BenchError(f"--{name} {file}: no such file; check the path")
        known = self.configuration.upsamplers
        for name, file in self.upsamplers.items():
            check_known(name, known, f"--upsampler-checkpoint {name}={file}: unknown upsampler '{name}'")
            if not file.is_file():
                raise BenchError(f"--upsampler-checkpoint {file}: no such file; check the path")
        return self

    @cached_property
    def configuration(self) -> Config:
        """benchmark.yaml on the backbone that is asked for."""
        return with_backbone(load_config(self.config), self.backbone)

    def row(self, name: str, where: str = "--methods") -> RowEntry:
        """Find the row of that name. BenchError for an unknown row, method, modifier, backbone or setting.

        where: the name was given, for the error.
        """
        row, rows = self.configuration.row(name), self.configuration.rows
        known = self._declared_methods
        if known is not None and row.method not in known:
            hint = did_you_mean(row.method, {*rows, *known})
            if " " in name.strip():
                hint = "separate names by commas"
            elif hint.startswith("known"):
                hint = "`python -m bench methods` lists them"
            raise BenchError(f"{where}: unknown row or method '{name}'; {hint}")
        return row

    @cached_property
    def _declared_methods(self) -> set[str] | None:
        """None where they are known only once packages are imported; a wrong name is then found by the registry."""
        return declared_methods(self.plugins)


class SegmenterOptions(ModelSpec):
    """Options of `load_segmenter` and `bench predict`: how they depart from the row."""

    long_side: Pixels | None = None
    """Of the network's input, pixels; None: the row's."""
    native: bool | None = False
    """The image's own resolution instead, strip by strip; None: of GeoTIFFs."""
    debias: float | None = Field(None, ge=0)
    """λ of the global bias; None: the row's."""
    threshold: Probability | None = None
    """Pixels less probable become class `background`; None: the row's on the dataset, of own words 0."""
    background: int | None = Field(None, ge=0)
    """Number of the background class; None: the dataset's, of own words 0."""


class RunSpec(ModelSpec):
    """A run: what to evaluate, on what, with what, and how."""

    methods: Names | None = None
    """Rows, methods or groups; `all`: the default rows (all, or those of the table; see `bench methods`)."""
    datasets: Names | None = None
    """Names of datasets or groups; `all`: the paper's 17, `more`: those that later papers use, `everything`: both (all,
    or those of the table; see `bench datasets`)."""
    table: str | None = None
    """A table of benchmark.yaml, whose rows and datasets are taken where none are named."""
    options: Texts = ()
    """A setting, or an option of the methods, of every row; may be repeated."""
    sweeps: Texts = ()
    """A row for each of these values of a setting; may be repeated."""
    vocabularies: Names = ()
    """Words: names of vocabularies, or YAML files (docs/protocols.md); a row for each."""
    protocols: Names = ()
    """Words, thresholds, scale of other papers: names of `protocols:`, or cvpr2025; a row for each."""
    only: Names = ()
    """States (missing, failed, stale): cells in others are left out."""
    data_root: Path | None = None
    """Folder of all datasets ($OVSS_BENCH_DATA, else ./data)."""
    cards: Files = ()
    """A folder of further dataset cards; may be repeated."""
    layouts: Layouts = Field({})
    """Read dataset X in its layout L (the first that is there); may be repeated."""
    demo: bool = False
    """The embedded test bed: rendered scenes and a tiny CLIP, offline; its results never replace real ones."""
    results: Path | None = None
    """Folder of the results (results, of the demo results/demo-run)."""
    limit: int | None = Field(None, ge=1)
    """The first N images of each dataset alone; such results are stored apart and marked."""
    shard: Shard | None = None
    """The I-th of N parts of each dataset alone (0/4 … 3/4), as one of N runs that share a results folder."""
    fresh: bool = False
    """Forget what is stored of these cells."""
    boundary: bool = False
    """Count boundary IoU as well."""
    save_predictions: int = Field(0, ge=0)
    """Keep label maps (indexed PNG) of N images of each dataset, spread evenly over it; without N: of all."""
    allow_incomplete: bool = False
    """A dataset with fewer or more images than its card expects is no failure."""
    workers: int | None = Field(None, ge=0)
    """Processes that decode images (of a process's share of the cores 2 on a CPU, up to 8 for a GPU); 0: none."""
    time_limit: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds that a method may take for a batch of windows; one that takes longer fails (no limit)."""

    @model_validator(mode="after")
    def _all_exists(self) -> Self:
        if self.demo:
            for name in ("backbone", "checkpoint", "data_root"):
                if getattr(self, name):
                    raise BenchError(f"--demo brings its backbone and data; leave {flag(name)} out")
            self._check_demo()
        config = self.configuration
        config.check_datasets(card_names(self.cards), self.config)
        if self.table is not None:
            check_known(self.table, config.tables, f"--table {self.table}: benchmark.yaml has no such table")
        for name in self.protocols:
            check_known(name, [OWN_PROTOCOL, *config.protocols], f"--protocol: unknown protocol '{name}'")
        for state in self.only:
            check_known(state, STATES, f"--only {state}: not a state of a cell")
        if self.shard is not None and not 0 <= self.shard[0] < self.shard[1]:
            raise BenchError(f"--shard {self.shard[0]}/{self.shard[1]}: I/N with I from 0 to N-1 is needed, as in 0/4")
        if self.data_root is not None:
            existing_root(self.data_root)
        self._check_layouts({card.name: card for card in self.dataset_cards})
        _ = self.rows  # each exists
        return self

    def _check_demo(self) -> None:
        from bench.demo.content import CARDS  # and numpy

        for card in self.dataset_cards if self.named else ():
            if card.name not in CARDS:
                advice = f"leave --demo out; `--backbone {DEMO}` runs the demo's CLIP on your data"
                raise BenchError(f"--demo has no dataset '{card.name}'; {advice}")

    def _check_layouts(self, cards: Mapping[str, Card]) -> None:
        for name, layout in self.layouts.items():
            if name not in cards or not layout:
                hint = did_you_mean(name, cards)
                raise BenchError(f"--layout {name}={layout}: X=L is needed, with X a dataset of this run; {hint}")
            check_known(layout, cards[name].layouts, f"--layout {name}={layout}: {name} has no layout '{layout}'")

    @cached_property
    def configuration(self) -> Config:
        """benchmark.yaml on the backbone that is asked for, with the vocabularies that are files."""
        config = with_backbone(load_config(self.config), DEMO if self.demo else self.backbone)
        own = {one.name: one.words for one in self._vocabularies if isinstance(one, VocabularyFile)}
        return config.model_copy(update={"vocabularies": {**config.vocabularies, **own}}) if own else config

    @cached_property
    def _vocabularies(self) -> list[VocabularyFile | str]:
        """Files of words that are asked for, and names of other vocabularies."""
        return [read_vocabulary(Path(one)) if one.endswith((".yaml", ".yml")) else one for one in self.vocabularies]

    @cached_property
    def rows(self) -> dict[str, RowEntry]:
        """Rows of the run by name, in order: groups filled in, options and sweeps applied."""
        config = self.configuration
        named: list[str] = []
        if self.methods is None and self.table is not None:
            named += config.tables[self.table].rows
        for name in (() if named else ("all",)) if self.methods is None else self.methods:
            named += config.row_group(name)
        silent = {("vocabulary", config.protocol.vocabulary), ("protocol", OWN_PROTOCOL)}
        choices = self._changes()
        count = len(named) * math.prod(len(choice) for choice in choices)
        if count > MOST_ROWS:
            raise BenchError(
                f"--sweep: {count:,} rows; at most {MOST_ROWS:,} can be asked for at once, give fewer values"
            )
        found: dict[str, RowEntry] = {}
        equal: dict[tuple[str, str], str] = {}  # a row, and its settings -> what it is called
        for name in named:
            row = self.row(name)
            for chosen in itertools.product(*choices):
                changes = [change for change in chosen if change not in silent]
                new, changed = config.changed(name, changes) if changes else (name, row)
                first = equal.setdefault((name, changed.model_dump_json(exclude={"label"})), new)
                if first != new:
                    raise BenchError(f"--sweep: {first} and {new} are the same row; give each value once")
                found[new] = changed
        return found

    def _changes(self) -> list[list[tuple[str, str]]]:
        """Collect for each option, sweep and choice of words the (key, value) pairs of which each row gets one."""
        found = [[_pair(option, "--option", "KEY=VALUE")] for option in self.options]
        for sweep in self.sweeps:
            key, values = _pair(sweep, "--sweep", "KEY=V1,V2")
            found.append([(key, value.strip()) for value in values.split(",") if value.strip()])
        vocabularies = [one if isinstance(one, str) else one.name for one in self._vocabularies]
        for key, names in {"vocabulary": vocabularies, "protocol": self.protocols}.items():
            found += [[(key, name) for name in names]] if names else []
        return found

    @cached_property
    def dataset_cards(self) -> tuple[Card, ...]:
        """Cards of the datasets that are asked for."""
        names: Sequence[str] = self.datasets or ()
        if self.datasets is None and self.table is not None:
            names = self.configuration.tables[self.table].columns
        chosen = [one for name in names or ("all",) for one in self.configuration.dataset_group(name)]
        cards = (load_card(name, self.cards) for name in chosen)
        return tuple({card.name: card for card in cards}.values())

    @property
    def named(self) -> bool:
        """True where datasets were named one by one, so that each must be there."""
        groups = {"all", *self.configuration.dataset_groups}
        return self.datasets is not None and not groups.issuperset(self.datasets)

    @property
    def folder(self) -> Path:
        """The results folder."""
        return self.results or Path(DEMO_RESULTS if self.demo else "results")


def _pair(text: str, flag: str, form: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not key or not equals or not value:
        raise BenchError(f"{flag} {text}: {form} is needed, as in threshold=0.3")
    return key, value
