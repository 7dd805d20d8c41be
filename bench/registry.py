"""The registry of methods.

Shipped plug-ins are the files of methods/, which `bench.methods` makes importable. Installed packages offer more
through the entry-point group ``ovss_bench.methods``, and ``--plugin`` adds a file or a folder for one run.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import io
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import ConfigDict, Field, ValidationError, create_model

from bench import methods
from bench.errors import BenchError, check_known, validation_message
from bench.paths import EARLIER_HASHES, shipped
from bench.runtime.sources import shipped_codes, source_of, text_hash, watching
from bench.runtime.sources import source_hash as source_hash
from bench.settings import Library, Overrides

Factory = TypeVar("Factory", bound=Callable[..., Any])
Share = Annotated[float, Field(ge=0, le=1)]
"""Annotation of an option that lies between 0 and 1."""


@dataclass(frozen=True)
class Method:
    """A registered plug-in.

    defaults: overrides that hold wherever a row does not say otherwise. tower: library of the backbones that it reads.
    """

    name: str
    label: str
    venue: str
    factory: Callable[..., Any]
    defaults: Overrides
    file: Path
    tower: Library = "open_clip"

    def build(self, options: dict[str, Any]) -> Callable[..., Any]:
        """Make the callable ``trunk -> Features`` with these options (validated against the plug-in's signature)."""
        checked = self.check(options)
        factory: Any = self.factory
        if not inspect.isclass(factory):
            return functools.partial(factory, **checked)
        from bench.runtime.process_state import foreign_code

        with foreign_code(f"method '{self.name}' ({self.file.name}) cannot be made"):
            built: Any = factory(**checked)
        with contextlib.suppress(AttributeError):  # equal instances share their features
            built.same_as = (self.name, repr(sorted(checked.items())))
        return cast("Callable[..., Any]", built)

    @property
    def stated_defaults(self) -> dict[str, Any]:
        """Its defaults as results state them: those that it sets."""
        return self.defaults.model_dump(mode="json", exclude_defaults=True)

    @property
    def takes_text(self) -> bool:
        """True where its features depend on the words."""
        return not inspect.isclass(self.factory) and "text" in inspect.signature(self.factory).parameters

    @property
    def makes_scores(self) -> bool:
        """True where it makes its own scores, on which neither upsampler nor λ can act."""
        return any(getattr(self.factory, name, None) is not None for name in ("scores", "collect"))

    def files(self, options: dict[str, Any]) -> dict[str, Path]:
        """Find the options that are files. Raises BenchError for one that does not exist."""
        found = {name: value for name, value in self.check(options).items() if isinstance(value, Path)}
        for name, file in found.items():
            if not file.is_file():
                raise BenchError(f"method '{self.name}', option '{name}': {file} does not exist; check the path")
        return found

    def check(self, options: dict[str, Any]) -> dict[str, Any]:
        """Complete the options of the method. Raises BenchError for unknown names and values."""
        known = self.options
        for name in options:
            check_known(name, known, f"method '{self.name}' has no option '{name}'")
        fields: dict[str, Any] = {n: (_or(p.annotation, Any), _or(p.default, ...)) for n, p in known.items()}
        model = create_model("Options", __config__=ConfigDict(allow_inf_nan=False), **fields)
        try:
            checked: dict[str, Any] = model(**options).model_dump()
        except ValidationError as error:
            first = error.errors()[0]
            raise BenchError(
                f"method '{self.name}', option '{first['loc'][0]}': {first['msg']} (value {first['input']!r})"
            ) from None
        return checked

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Parameters of the plug-in's options, by name."""
        try:
            parameters = list(inspect.signature(self.factory, eval_str=True).parameters.values())
        except Exception as error:  # an annotation may be any expression
            raise BenchError(
                f"method '{self.name}' ({self.file.name}): an option's annotation cannot be read ({error}); correct it"
            ) from None
        own = parameters if inspect.isclass(self.factory) else parameters[1:]  # the first one is the trunk
        return {p.name: p for p in own if p.name != "text"}

    @property
    def source_hash(self) -> str:
        """Hash (SHA-256) of the plug-in's code and of what it imports below its folder, part of a result's identity."""
        return source_hash(self.file)


def earlier_hashes(file: Path) -> set[str]:
    """Return the hashes by which results of earlier versions name the code that a plug-in has now.

    These are hashes of its text, docstrings included: as it is now, and as it was shipped then; and those of earlier
    code that computed the same.
    """
    now = source_hash(file)
    codes = shipped_codes(shipped(EARLIER_HASHES))
    return {text_hash(file), *(earlier for earlier, code in codes.items() if code == now)}


@dataclass(frozen=True)
class Refinement:
    """A registered refinement of stitched scores: ``apply(image, scores, text) -> scores``, see `methods/pamr.py`.

    at_original: of the scores enlarged to the size of the original image, not at the network's size.
    reach: pixels beyond which nothing of image and scores changes a score; None: all of them may.
    """

    name: str
    label: str
    apply: Callable[..., Any]
    file: Path
    at_original: bool = False
    reach: int | None = None


def _or(given: Any, otherwise: Any) -> Any:
    return otherwise if given is inspect.Parameter.empty else given


_registry: dict[str, Method] = {}
_refinements: dict[str, Refinement] = {}


def refinement(
    name: str, *, label: str | None = None, at_original: bool = False, reach: int | None = None
) -> Callable[[Factory], Factory]:
    """Register the decorated function as a refinement, which `refine: NAME` in benchmark.yaml asks for.

    The function takes an image (3, H, W), normalised, scores (Q, H, W) on the same device, and text (Q, C), and returns
    scores of the same shape. H and W are the network's size of the whole image or, `at_original`, of the original,
    to which scores and network input were enlarged bilinearly. `reach`: how many pixels away image and scores can
    change a score, where that is bounded; such a refinement works on parts of a scene, each larger by so much.
    """

    def register(function: Factory) -> Factory:
        _refinements[name] = Refinement(name, label or name, function, source_of(function), at_original, reach)
        return function

    return register


def find_refinement(name: str) -> Refinement:
    """Find the refinement of that name. BenchError for an unknown one."""
    check_known(name, _refinements, f"unknown refinement '{name}'")
    return _refinements[name]


def method(
    name: str, *, label: str | None = None, venue: str = "", tower: Library = "open_clip", **defaults: Any
) -> Callable[[Factory], Factory]:
    """Register the decorated function or class as a method.

    name: what `--methods` and benchmark.yaml call it. label, venue: how tables print it. tower: library of the
    backbones that it is made for. defaults: any of `bench.settings.Overrides`, e.g. ``upsampler="simfeatup",
    debias=0.3``.
    """
    check_known(tower, get_args(Library), f"method '{name}': tower '{tower}'")

    def register(factory: Factory) -> Factory:
        file = source_of(factory)
        try:
            overrides = Overrides(**defaults)
        except ValidationError as error:
            raise BenchError(f"method '{name}' in {validation_message(file, error)}") from None
        new = Method(name, label or name, venue, factory, overrides, file, tower)
        old = _registry.get(name)
        cells = old is not None and not old.file.is_file() and not file.is_file()  # an edited cell has another name
        if old is not None and not cells and old.file.resolve() != file.resolve():
            raise BenchError(f"two plug-ins are called '{name}': {old.file} and {file}; rename one")
        _registry[name] = new
        return factory

    return register


def load_methods(plugins: Sequence[str | Path] = ()) -> dict[str, Method]:
    """Load every method that can be found: shipped, of entry points, and of the given files or folders."""
    for module in pkgutil.iter_modules(methods.__path__):
        importlib.import_module(f"{methods.__name__}.{module.name}")
    for point in entry_points(group="ovss_bench.methods"):
        _guarded(f"entry point {point.name} ({point.value})", point.load)
    for file in _files(plugins):
        _guarded(str(file), functools.partial(_import_file, file.resolve()))
    return dict(sorted(_registry.items()))


def declared_methods(plugins: Sequence[str | Path] = ()) -> set[str] | None:
    """Read the names of methods that are registered or that files of plug-ins declare, without importing these.

    None where that cannot be known: a name that is computed, or a package that offers methods.
    """
    if entry_points(group="ovss_bench.methods"):
        return None
    names = set(_registry)
    for file in _files([*methods.__path__, *plugins]):
        found = _declared(file)
        if found is None:
            return None
        names |= found
    return names


def _files(places: Sequence[str | Path]) -> Iterator[Path]:
    for place in places:
        path = Path(place).expanduser()
        if not path.exists():
            raise BenchError(f"--plugin {path}: no such file or folder; give a .py file or a folder of them")
        yield from sorted(path.glob("*.py")) if path.is_dir() else [path]


def _declared(file: Path) -> set[str] | None:
    """Read the names that the file's `@method` give; None where unknown. BenchError for one that stands twice."""
    try:
        names = _names_in(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None  # importing it says what is wrong
    if names is None:
        return None
    for place, name in enumerate(names):
        if name in names[:place]:
            raise BenchError(f"{file}: two methods are called '{name}'; rename one")
    return set(names)


@functools.lru_cache
def _names_in(source: str) -> tuple[str, ...] | None:
    """Read the names that `@method` give in a source, in order; None where one is computed."""
    names = []
    for node in ast.walk(ast.parse(source)):
        for decorator in getattr(node, "decorator_list", ()):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).split(".")[-1] == "method":
                first = decorator.args[0] if decorator.args else None
                if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
                    return None
                names.append(first.value)
    return tuple(names)


def find_method(name: str, methods: Mapping[str, Method]) -> Method:
    """Find the method of that name; the error for an unknown one offers the closest."""
    check_known(name, methods, f"unknown method '{name}'")
    return methods[name]


def _guarded(what: str, load: Callable[[], Any]) -> None:
    """Run somebody else's import; whatever it raises becomes one line that names the file."""
    from bench.runtime.process_state import foreign_code

    said, arguments = io.StringIO(), sys.argv
    with foreign_code(f"plug-in {what} cannot be imported"):
        sys.argv = arguments[:1]  # bench's own are none of its business
        try:
            with contextlib.redirect_stderr(said):
                load()
        except SystemExit:
            said = io.StringIO()  # such as the usage that argparse prints
            raise
        finally:
            sys.argv = arguments
            sys.stderr.write(said.getvalue())


def _import_file(file: Path) -> None:
    package = f"ovss_bench_plugin_{hashlib.sha256(str(file.parent).encode()).hexdigest()[:8]}"
    if package not in sys.modules:  # so that the files of a folder can import each other
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(file.parent)]
    name = f"{package}.{file.stem}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BenchError(f"--plugin {file}: not a Python file; give a .py file or a folder of them")
    _declared(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with watching(file):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
