"""Files in archives."""

from __future__ import annotations

import gzip
import pickle
import zipfile

import pytest
from data_helpers import pack

from bench.data.archives import File, Tree
from bench.errors import BenchError


@pytest.fixture
def folder(tmp_path):
    for name in ("a/1.txt", "a/2.txt", "b.txt"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(f"this is {name}")
    return tmp_path / "set"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_counts_as_unpacked_where_it_lies(folder, kind):
    pack(folder / "a", folder / "a" / f"some.{kind}")
    tree = Tree(folder, [f"*/*.{kind}"])
    assert sorted(tree.list("")) == ["a", "b.txt"]
    assert {"1.txt", "2.txt"} <= tree.list("a").keys()
    file = tree.get("a/2.txt")
    assert file.read() == b"this is a/2.txt"
    assert file.size() == 15
    assert str(file).endswith("!2.txt")
    assert pickle.loads(pickle.dumps(file)).read() == file.read()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_may_stand_in_for_the_folder(folder, kind, tmp_path):
    pack(folder, tmp_path / f"whole.{kind}")
    tree = Tree(tmp_path / f"whole.{kind}")
    assert tree.list("a").keys() == {"1.txt", "2.txt"}
    assert tree.get("b.txt").read() == b"this is b.txt"
    assert tree.get("a") is None and tree.get("a/3.txt") is None and tree.get("c/1.txt") is None


def test_files_on_disk_go_before_packed_ones(folder):
    with zipfile.ZipFile(folder / "x.zip", "w") as packed:
        packed.writestr("b.txt", "packed")
        packed.writestr("c/.hidden", "packed")
    tree = Tree(folder, ["*.zip"])
    assert tree.get("b.txt") == File(folder / "b.txt")
    assert not tree.list("c")


def test_archives_that_are_not_declared_stay_closed(folder):
    pack(folder / "a", folder / "train.zip")
    assert Tree(folder, ["val*.zip"]).list("").keys() == {"a", "b.txt", "train.zip"}


def test_a_changed_archive_is_opened_again(folder):
    path = folder / "x.zip"
    for text in ("first", "second"):
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("c.txt", text)
        assert Tree(path).get("c.txt").read() == text.encode()


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_what_is_no_archive_is_refused(folder, name):
    (folder / name).write_text("<html>quota exceeded</html>")
    with pytest.raises(BenchError, match=rf"{name}: "):
        Tree(folder, ["x.*"])


def test_a_cut_off_gzip_leaves_nothing_in_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    (folder / "x.tar.gz").write_bytes(gzip.compress(bytes(range(256)) * 400)[:-30])
    with pytest.raises(BenchError, match=r"x\.tar\.gz: the archive is cut off or damaged"):
        Tree(folder, ["*.tar.gz"])
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_a_broken_member_is_named(folder):
    with zipfile.ZipFile(folder / "x.zip", "w") as packed:
        packed.writestr("c.txt", "contents that are long enough")
    data = (folder / "x.zip").read_bytes()
    (folder / "x.zip").write_bytes(data.replace(b"contents", b"CONTENTS"))
    with pytest.raises(BenchError, match=r"x\.zip!c\.txt: cannot be read .*CRC"):
        Tree(folder, ["*.zip"]).get("c.txt").read()


def test_what_unpacks_to_far_more_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bench.data.archives._ROOM", 1 << 20)
    with gzip.open(folder / "x.tar.gz", "wb") as packed:
        packed.write(bytes(8 << 20))
    with pytest.raises(BenchError, match=r"x\.tar\.gz: .*unpack it by hand"):
        Tree(folder, ["*.tar.gz"])
    assert not list((tmp_path / "cache").rglob("*.*"))
    with zipfile.ZipFile(folder / "y.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("c.txt", bytes(8 << 20))
    with pytest.raises(BenchError, match=r"c\.txt: .*unpack it by hand"):
        Tree(folder, ["y.zip"]).get("c.txt").read()
