"""benchmark.yaml, validated: protocol, backbones, upsamplers, rows and tables.

A *row* of a table is a method plus overrides. The command line may also spell a row that the file does not list:

    sclip              a method with its own defaults
    sclip+ours         the same with a modifier of `modifiers:`
    sclip@remoteclip   the same on another backbone of `backbones:`

A *cell* is a row on a dataset; `Config.settings_of` resolves everything that decides its numbers into one flat
`bench.settings.Settings`. `Config.resolve` says which layer wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from bench.errors import BenchError, check_known, did_you_mean, validation_message
from bench.paths import shipped
from bench.runtime.yaml_files import read_yaml, yaml_value
from bench.settings import (
    IGNORED,
    Aggregate,
    DatasetDefaults,
    Library,
    Model,
    Overrides,
    Probability,
    ResizeRule,
    Scale,
    Settings,
    Stride,
    Window,
    Words,
)

FIRST: Final = "/first"  # behind the name of a vocabulary


class NoWords(BenchError):
    """A vocabulary does not have the dataset."""


class Protocol(Model):
    """Defaults of every row (paper, section 5.2; where silent, the released configuration)."""

    backbone: str
    upsampler: str = "none"
    debias: float = Field(0.0, ge=0, le=1e6)
    debias_on: Literal["scores", "features"] = "scores"
    resize: ResizeRule
    window: Window
    stride: Stride
    scale: Scale
    vocabulary: str
    aggregate: Aggregate = "max"
    tau: float = Field(4.0, gt=0)
    templates: str = "imagenet"


class NamedProtocol(Overrides):
    """How a paper feeds the same methods."""

    thresholds: dict[str, Probability] = Field({})  # short for `datasets: {NAME: {threshold: …}}`
    datasets: dict[str, Overrides] = Field({})  # what it does otherwise on some datasets
    source: str | None = None  # where this is read from

    def on(self, dataset: str) -> Overrides:
        """Return what it overrides on one dataset."""
        own = self.datasets.get(dataset, Overrides())
        threshold = self.thresholds.get(dataset) if own.threshold is None else own.threshold
        return own.model_copy(update={"threshold": threshold})


class RowEntry(Overrides):
    """A row of benchmark.yaml: a method and what it changes of the protocol."""

    method: str
    label: str | None = None  # "{method}" in it stands for the label of the method
    note: str | None = None

    def title(self, of_method: str | None = None) -> str:
        """Title of the row in tables, of a method with the given label."""
        return (self.label or "{method}").replace("{method}", of_method or self.method)


class WeightsSpec(Model):
    """What models say of their weights.

    file: checkpoint below the weights folder. note: where a file without address comes from. bytes: size of the file,
    as its source states it. gated: its licence has to be accepted first.
    """

    file: str | None = None
    url: str | None = None
    bytes: int | None = None
    license: str | None = None
    gated: bool = False
    note: str | None = None


class BackboneSpec(WeightsSpec):
    """A frozen model that sees images and reads words.

    library: what builds it; a method says which it needs. model: as the library calls it. file: for weights that the
    library does not fetch. image_file: another, of its image tower. seed: instead, weights of a tiny model drawn by a
    recipe (the demo).
    """

    library: Library = "open_clip"
    model: str
    pretrained: str | None = None
    image_file: str | None = None
    seed: int | None = None


class UpsamplerSpec(WeightsSpec):
    """An upsampler: its kind (`bench.models.upsamplers`) and its checkpoint.

    git_blob, sha256: checked after a download. seed: instead of a file, weights drawn by a recipe (the demo).
    """

    kind: str
    git_blob: str | None = None
    sha256: str | None = None
    seed: int | None = None


class SecondSpec(WeightsSpec):
    """A frozen second model, which methods name by role.

    library: "timm", or "tower" for the image tower of the backbone `name`. name: as the library calls it. position: how
    its position embedding meets another grid, see `bench.models.second_kinds`. side: of the squares that a tower is
    given.
    """

    library: Literal["timm", "tower"] = "timm"
    name: str
    sha256: str | None = None
    position: Literal["library", "factor"] = "library"
    side: int | None = None


class Table(Model):
    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    published: str | None = None  # file below results/published/
    average: bool = False
    note: str | None = None


class Config(Model):
    protocol: Protocol
    modifiers: dict[str, Overrides] = Field({})
    backbones: dict[str, BackboneSpec]
    upsamplers: dict[str, UpsamplerSpec]
    models: dict[str, SecondSpec] = Field({})
    protocols: dict[str, NamedProtocol] = Field({})
    templates: dict[str, tuple[str, ...]] = Field({})  # sentences with {} for the word
    rows: dict[str, RowEntry]
    default_rows: tuple[str, ...]  # what `--methods all` means
    vocabularies: dict[str, dict[str, tuple[Words, ...]]] = Field({})  # name -> dataset -> words
    groups: dict[str, tuple[str, ...]] = Field({})  # further names that stand for several rows
    default_datasets: tuple[str, ...]  # what `--datasets all` means
    dataset_groups: dict[str, tuple[str, ...]] = Field({})  # further names for several datasets
    tables: dict[str, Table]

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        listed = {f"tables.{name}": table.rows for name, table in self.tables.items()}
        for where, names in {"default_rows": self.default_rows, **listed}.items():
            for name in names:
                if name not in self.rows and base_name(name) not in self.rows:
                    raise ValueError(f"{where} names the row '{name}', which `rows:` lacks")
                self.row(name)
        for name, sentences in self.templates.items():
            if not sentences or any("{}" not in sentence for sentence in sentences):
                raise ValueError(f"templates.{name}: sentences with {{}} in the place of the word are needed")
        for name, spec in self.models.items():
            if spec.library == "tower" and spec.name not in self.backbones:
                raise ValueError(f"models.{name}.name '{spec.name}' is not in `backbones:`")
        changed: dict[str, Protocol | Overrides] = {"protocol": self.protocol, **self.modifiers, **self.rows}
        for name, one in self.protocols.items():
            changed |= {f"protocols.{name}": one}
            changed |= {f"protocols.{name}.datasets.{dataset}": own for dataset, own in one.datasets.items()}
        for name, row in changed.items():
            models = row.models if isinstance(row, Overrides) else {}
            for key, value, section, known in (
                ("backbone", row.backbone, "backbones", self.backbones),
                ("upsampler", row.upsampler, "upsamplers", {"none", *self.upsamplers}),
                ("templates", row.templates, "templates", {"imagenet", *self.templates}),
                *((f"models.{role}", model, "models", self.models) for role, model in models.items()),
            ):
                if value is not None and value not in known:
                    raise ValueError(f"{name}.{key} '{value}' is not in `{section}:`")
        return self

    def check_datasets(self, known: Sequence[str], file: str | Path | None) -> None:
        """Raise BenchError for a dataset that the file names and that has no card."""
        named: dict[str, Iterable[str]] = {"default_datasets": self.default_datasets}
        named |= {f"dataset_groups.{name}": datasets for name, datasets in self.dataset_groups.items()}
        named |= {f"tables.{name}.columns": table.columns for name, table in self.tables.items()}
        for name, protocol in self.protocols.items():
            named |= {f"protocols.{name}.datasets": protocol.datasets}
            named |= {f"protocols.{name}.thresholds": protocol.thresholds}
        for where, names in named.items():
            for name in names:
                check_known(name, known, f"{file or 'benchmark.yaml'}: {where}: no dataset '{name}'")

    def row_group(self, name: str) -> tuple[str, ...]:
        """Names of the rows that a name stands for: `all`, a group, or itself."""
        return {"all": self.default_rows, **self.groups}.get(name, (name,))

    def dataset_group(self, name: str) -> tuple[str, ...]:
        """Names of the datasets that a name stands for: `all`, a group, or itself."""
        return {"all": self.default_datasets, **self.dataset_groups}.get(name, (name,))

    def row(self, name: str) -> RowEntry:
        """Find the row of that name, or read the one that `method[+modifier…][@backbone]` spells.

        In brackets stands what it changes, as in `sclip+ours[vocabulary=plain,threshold=0]`.
        """
        if name in self.rows:
            return self.rows[name]
        if name.endswith("]"):
            return self.changed(name, ())[1]
        spelled, at, backbone = name.partition("@")
        base, *modifiers = spelled.split("+")
        if len(set(modifiers)) < len(modifiers):
            raise BenchError(f"row '{name}': a modifier stands twice; name each once")
        row = self.rows.get(base) or RowEntry(method=base)
        for modifier in modifiers:
            check_known(modifier, self.modifiers, f"row '{name}': unknown modifier '+{modifier}'")
            row = _merge(row, self.modifiers[modifier])
        if at:
            check_known(backbone, self.backbones, f"row '{name}': unknown backbone '@{backbone}'")
            row = row.model_copy(update={"backbone": backbone})
        if not modifiers and not backbone:
            return row
        label = "+".join([row.label or "{method}", *modifiers]) + (f" @{backbone}" if backbone else "")
        return row.model_copy(update={"label": label})

    def changed(self, name: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, RowEntry]:
        """Give a row further settings, (key, value as text); return it with the name that spells it.

        Keys that are no setting are options of the method.
        """
        base, typed = split_name(name)
        row = self.row(base)
        changes: dict[str, Any] = {}
        options: dict[str, Any] = {}
        models: dict[str, Any] = {}
        seen: set[str] = set()
        new = spelled(base, every := [*typed, *pairs])
        for key, text in every:
            if not key or not text:
                raise BenchError(f"row '{name}': '{key}{text and '='}{text}' is not KEY=VALUE")
            target = "resize" if key in ("long_side", "short_side") else key.removeprefix("options.")
            if target in seen:
                raise BenchError(f"row '{new}': '{key}' stands twice; give one value")
            seen.add(target)
            value = yaml_value(text, f"row '{name}', {key}")
            if key in ("long_side", "short_side"):
                changes["resize"] = {key: value}
            elif key.startswith("models."):
                models[key.removeprefix("models.")] = value
            elif key in Overrides.model_fields and key not in ("options", "models"):
                changes[key] = value
            else:
                options[key.removeprefix("options.")] = value
        try:
            change = Overrides.model_validate({**changes, "options": options, "models": models})
        except ValidationError as error:
            raise BenchError(validation_message(Path(f"row '{name}'"), error)) from None
        merged = _merge(row, change)
        return new, merged.model_copy(update={"label": f"{row.label or '{method}'} {new.removeprefix(base)}"})

    def words(self, card: DatasetDefaults, vocabulary: str) -> Sequence[Sequence[str]]:
        """Find the words of a vocabulary for a dataset.

        NAME/first: of the vocabulary NAME the first word of each class alone. Raises NoWords where it has none for the
        dataset, BenchError where it has not one list per class.
        """
        if vocabulary.endswith(FIRST):
            return [words[:1] for words in self.words(card, vocabulary.removesuffix(FIRST))]
        own = self.vocabularies.get(vocabulary, {}).get(card.name)
        if own is None and vocabulary in card.vocabularies:
            return card.vocabularies[vocabulary]
        if own is None:
            known = {*card.vocabularies, *(name for name, words in self.vocabularies.items() if card.name in words)}
            hint = did_you_mean(vocabulary, known)
            raise NoWords(f"dataset {card.name} has no vocabulary '{vocabulary}'; {hint}")
        classes = len(next(iter(card.vocabularies.values())))
        if len(own) != classes:
            raise BenchError(
                f"vocabulary '{vocabulary}': words.{card.name} has {len(own)} lists for {classes} classes; "
                "give one per class"
            )
        return own

    def _protocol(self, name: str | None) -> NamedProtocol:
        """Find the protocol of that name. BenchError for an unknown one."""
        if name is None:
            return NamedProtocol()
        check_known(name, self.protocols, f"unknown protocol '{name}'")
        return self.protocols[name]

    def resolve(
        self,
        row: RowEntry,
        method: Overrides,
        card: dict[str, Any],
        flags: dict[str, Any] | None = None,
        dataset: str = "",
    ) -> dict[str, Any]:
        """Lay all that overrides the protocol over it.

        Later wins: `protocol:`, the dataset's card, the method's defaults, the named protocol, what that says of the
        dataset, the row (its brackets last), the command line. Options and second models are overridden one by one.
        """
        named = self._protocol(method.protocol if row.protocol is None else row.protocol)
        layers = (method, named, named.on(dataset), row)
        chosen = self.protocol.model_dump() | card
        for layer in layers:
            chosen |= _given(layer)
        chosen.pop("protocol", None)
        chosen["options"] = {name: value for layer in layers for name, value in layer.options.items()}
        chosen["models"] = {role: name for layer in layers for role, name in layer.models.items()}
        return chosen | (flags or {})

    def settings_of(self, name: str, card: DatasetDefaults, method: Overrides, row: RowEntry | None = None) -> Settings:
        """Resolve the settings of the row called `name` on one dataset.

        method: defaults of its method. row: what the name stands for, where it is known. A card's `debias` replaces the
        λ of every row that subtracts at all (xBD is run without).
        """
        row = row or self.row(name)
        of_card = card.overrides() | {"threshold": card.threshold, "background": card.background}
        try:
            chosen = self.resolve(row, method, of_card, dataset=card.name)
        except BenchError as error:
            raise BenchError(f"row '{name}': {error}") from None
        if chosen["debias"] and card.debias is not None:
            chosen["debias"] = card.debias
        classes = len(next(iter(card.vocabularies.values())))
        if 0 < classes <= chosen["background"] != IGNORED:
            raise BenchError(
                f"row '{name}': background {chosen['background']}: dataset {card.name} has {classes} classes, numbered "
                "from 0; give one of them or `none`"
            )
        return Settings(row=name, dataset=card.name, method=row.method, **chosen)


def _given(change: Overrides) -> dict[str, Any]:
    """Keys of the protocol that `change` sets."""
    return {k: v for k, v in change.model_dump(include=set(Overrides.model_fields)).items() if v not in (None, {})}


def _merge(row: RowEntry, change: Overrides) -> RowEntry:
    merged = {"options": {**row.options, **change.options}, "models": {**row.models, **change.models}}
    return RowEntry(**{**row.model_dump(), **_given(change), **merged})


def load_config(path: str | Path | None = None) -> Config:
    """benchmark.yaml, with another file of that form laid over it, validated.

    Raises BenchError naming file and key for unreadable YAML, unknown keys, wrong values and dangling names.
    """
    file, wanted = shipped("benchmark.yaml"), "a YAML file with --config"
    content = read_yaml(file, wanted)
    if path:
        file = Path(path)
        content = _overlaid(content, read_yaml(file, wanted))
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise BenchError(validation_message(file, error)) from None


def split_name(name: str) -> tuple[str, list[tuple[str, str]]]:
    """Split a name into the row that it starts with and its settings in brackets as (key, value as text).

    >>> split_name("sclip+ours[debias=0.3]")
    ('sclip+ours', [('debias', '0.3')])
    """
    base, bracket, inside = name.removesuffix("]").partition("[")
    parts = [part.partition("=") for part in inside.split(",")] if bracket else []
    return base, [(key.strip(), text.strip()) for key, _, text in parts]


def spelled(base: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Join the parts that `split_name` returns to a name."""
    return f"{base}[{','.join(f'{key}={text}' for key, text in pairs)}]" if pairs else base


def base_name(row: str) -> str:
    """Return the method, or row of benchmark.yaml, that a spelled row starts with.

    >>> base_name("sclip+ours@remoteclip[debias=0.3]")
    'sclip'
    """
    return split_name(row)[0].partition("@")[0].split("+")[0]


def _overlaid(content: Any, own: Any) -> Any:
    """Lay a user's configuration over the shipped one.

    Entries of sections are added or replaced one by one, and everything else as a whole.
    """
    if not isinstance(own, dict):
        return own
    merged = dict(content)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged
