"""Class names and synonyms -> text embeddings, kept on disk.

Encoding costs 80 sentences a word; the words of all datasets take many minutes on a CPU. So each word's
embedding is stored under the hash of the weights, of the templates and of the word.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from bench.errors import BenchError
from bench.models.tower import ReadingTower
from bench.paths import cache_dir
from bench.runtime.atomic import write_atomic

Template = Callable[[str], str]
TEMPLATES: tuple[Template, ...] = tuple(OPENAI_IMAGENET_TEMPLATES)  # the 80 sentences of Radford et al. 2021


@dataclass(frozen=True)
class Vocabulary:
    """Prompt words of a dataset.

    queries: the Q words, synonyms included, in class order. classes: for each query the class it stands for.
    A class scores as its best word does (paper, section 5.2).
    """

    queries: tuple[str, ...]
    classes: tuple[int, ...]

    @classmethod
    def of(cls, words: Sequence[Sequence[str]]) -> Vocabulary:
        """From one list of synonyms a class: ``[["background"], ["building", "house", "roof"]]``."""
        return cls(
            tuple(word for synonyms in words for word in synonyms),
            tuple(index for index, synonyms in enumerate(words) for _ in synonyms),
        )

    @classmethod
    def parse(cls, text: str) -> Vocabulary:
        """From ``"background; road; building, house, roof"``: classes by semicolons, synonyms by commas."""
        words = [[word.strip() for word in line.split(",")] for line in text.strip().rstrip(";").split(";")]
        return cls.own(words, f"--classes '{text}'")

    @classmethod
    def own(cls, words: Sequence[Sequence[str]], where: str = "classes") -> Vocabulary:
        """As `of`, of a user's words. BenchError for words that make no classes. where: they are given, for errors."""
        if not words or not all(synonyms and all(synonyms) for synonyms in words):
            raise BenchError(
                f"{where}: an empty class or synonym; write e.g. 'background; road; building, house, roof'"
            )
        if odd := next((word for synonyms in words for word in synonyms if not word.isprintable()), None):
            raise BenchError(f"--classes: {odd!r} holds a line break or a control character; remove it")
        if len(words) > 255:
            raise BenchError(f"{where[:80]}: {len(words)} classes; label maps are 8-bit, so at most 255 fit")
        names = [synonyms[0] for synonyms in words]
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise BenchError(
                f"{where}: two classes are called '{twice[0]}'; put another word first in one, or join them"
            )
        return cls.of(words)

    @property
    def words(self) -> list[list[str]]:
        """List of synonyms per class, as `of` takes it."""
        return [[q for q, c in zip(self.queries, self.classes, strict=True) if c == i] for i in range(self.size)]

    @property
    def names(self) -> tuple[str, ...]:
        """The first word of each class."""
        return tuple(self.queries[self.classes.index(index)] for index in range(self.size))

    @property
    def size(self) -> int:
        """Number of classes."""
        return self.classes[-1] + 1

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.queries, self.classes, _templates_hash(TEMPLATES))).encode()).hexdigest()


@torch.inference_mode()
def encode_words(
    backbone: ReadingTower,
    words: Sequence[str],
    templates: Sequence[Template] = TEMPLATES,
    report: Callable[[str], None] = lambda _: None,
    cache: Path | None = None,
) -> Tensor:
    """(n, C) float32 unit embeddings of words with any templates, on the backbone's device.

    report: called with each word that has to be encoded
    cache: folder of stored embeddings, by default below `bench.paths.cache_dir()`; where it cannot be written to, the
    embeddings are computed again next time
    """
    folder = _folder(backbone.fingerprint, _templates_hash(templates)[:8], cache)
    makes = [functools.partial(ensemble, backbone, word, templates) for word in words]
    made = [_kept(folder, word, make, report) for word, make in zip(words, makes, strict=True)]
    return torch.stack(made).to(backbone.device)


def ensemble(backbone: ReadingTower, word: str, templates: Sequence[Template] = TEMPLATES) -> Tensor:
    """(C,) unit embedding of a word: mean of the normalised embeddings of its sentences, normalised again."""
    embeddings = F.normalize(backbone.encode_prompts([template(word) for template in templates]), dim=-1)
    return F.normalize(embeddings.mean(dim=0), dim=0)


def encode(
    backbone: ReadingTower,
    vocabulary: Vocabulary,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
    templates: Sequence[Template] = TEMPLATES,
) -> Tensor:
    """(Q, C) float32 unit embeddings of all queries; see `encode_words`."""
    return encode_words(backbone, vocabulary.queries, templates, report, cache)


def remembered(
    fingerprint: str,
    kind: str,
    word: str,
    make: Callable[[], Tensor],
    report: Callable[[str], None] = lambda _: None,
) -> Tensor:
    """Values (n,) float32 that a tower of its own kind makes of a word, kept on disk by its fingerprint."""
    return _kept(_folder(fingerprint, kind), word, lambda: make().flatten(), report)


def _folder(fingerprint: str, kind: str, cache: Path | None = None) -> Path | None:
    """Where values of words are kept; None for random weights, which have no fingerprint."""
    if not fingerprint:
        return None
    if not fingerprint.isalnum():  # of more than one model: no part of it may be left out
        fingerprint = hashlib.sha256(fingerprint.encode()).hexdigest()
    return (cache or cache_dir() / "text") / f"{fingerprint[:16]}-{kind}"


def _kept(folder: Path | None, word: str, make: Callable[[], Tensor], report: Callable[[str], None]) -> Tensor:
    if folder is None:
        return make().cpu()
    file = folder / f"{hashlib.sha256(word.encode()).hexdigest()[:24]}.f32"
    with contextlib.suppress(OSError):
        if (embedding := _unsealed(file.read_bytes(), file)) is not None:
            return embedding
    report(word)
    embedding = make().cpu()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(file, _sealed(embedding, file))
    return embedding


def _sealed(embedding: Tensor, file: Path) -> bytes:
    """Return float32 values after the SHA-256 of these and of what they are kept for: weights, templates, word."""
    values = embedding.numpy().astype("<f4").tobytes()
    return hashlib.sha256(f"{file.parent.name}/{file.name}".encode() + values).digest() + values


def _unsealed(data: bytes, file: Path) -> Tensor | None:
    """Return the embedding in a file; None where it is damaged, or of another word."""
    values = np.frombuffer(data[32:], "<f4") if len(data) % 4 == 0 else np.empty(0, "<f4")
    embedding = torch.from_numpy(values.astype(np.float32))
    return embedding if data and _sealed(embedding, file) == data else None


def filled(sentences: Sequence[str]) -> tuple[Template, ...]:
    """Sentences with {} as templates."""
    return tuple(functools.partial(str.replace, sentence, "{}") for sentence in sentences)


def _templates_hash(templates: Sequence[Template]) -> str:
    return hashlib.sha256("\n".join(template("{}") for template in templates).encode()).hexdigest()
