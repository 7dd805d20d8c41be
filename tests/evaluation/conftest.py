from __future__ import annotations

from pathlib import Path

import pytest
from project import BOTH, Project, cards_of_any_count


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after an undisturbed run of all rows on both datasets."""
    root = tmp_path_factory.mktemp("finished")
    project = Project(root)
    with cards_of_any_count(root):
        assert project.run(*BOTH) == 0
    return project
