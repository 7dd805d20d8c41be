"""Words for the classes of several datasets under one name: `datasets/vocabularies/*.yaml`, and a user's file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from bench.data.schema import Strict
from bench.errors import BenchError, validation_message
from bench.paths import shipped
from bench.runtime.yaml_files import read_yaml
from bench.settings import Words


class VocabularyFile(Strict):
    """One file.

    words: for each dataset one list per class, in the order of the card's classes; synonyms in a list. chosen: what
    tables say of its words where they were chosen on the images that are evaluated.
    """

    name: str
    about: str = ""
    source: str = ""
    chosen: str | None = None
    words: dict[str, tuple[Words, ...]]


def read_vocabulary(file: Path) -> VocabularyFile:
    """Read and validate a file. BenchError naming file and key for what is wrong."""
    content = read_yaml(file, "a YAML file or the name of a vocabulary")
    if isinstance(content, dict) and "name" not in content:
        content = {"name": file.stem, **content}
    try:
        return VocabularyFile.model_validate(content)
    except ValidationError as error:
        raise BenchError(validation_message(file, error)) from None


@lru_cache(maxsize=1)
def shared_vocabularies() -> tuple[VocabularyFile, ...]:
    """Return the vocabularies that ship with the harness."""
    return tuple(read_vocabulary(file) for file in sorted(shipped("datasets/vocabularies").glob("*.yaml")))


def words_for(dataset: str) -> Iterator[tuple[str, tuple[Words, ...]]]:
    """(name, words) of every shared vocabulary that has the dataset."""
    for vocabulary in shared_vocabularies():
        if dataset in vocabulary.words:
            yield vocabulary.name, vocabulary.words[dataset]
