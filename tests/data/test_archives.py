"""Files in archives."""

from __future__ import annotations

import gzip
import pickle
import tarfile
import zipfile

import pytest
from data_helpers import pack

from bench.data.archives import File, Tree, clean
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
    assert tree.get("b.txt") == File(str(folder / "b.txt"))
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
    (odd,) = Tree(folder, ["x.*"]).odd
    assert odd.startswith(f"{folder / name}: not a whole zip or tar archive")
    with pytest.raises(BenchError, match=rf"{name}: not a whole"):
        Tree(folder / name)


def test_a_cut_off_gzip_leaves_nothing_in_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    (folder / "x.tar.gz").write_bytes(gzip.compress(bytes(range(256)) * 400)[:-30])
    (odd,) = Tree(folder, ["*.tar.gz"]).odd
    assert "x.tar.gz: not a whole zip or tar archive" in odd
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
    (folder / "big").mkdir()
    (folder / "big/zeros.png").write_bytes(bytes(8 << 20))
    pack(folder / "big", folder / "x.tar.gz")
    with pytest.raises(BenchError, match=r"x\.tar\.gz: .*unpack it by hand"):
        Tree(folder, ["*.tar.gz"]).get("zeros.png").read()
    assert not list((tmp_path / "cache").rglob("*.tar"))
    with zipfile.ZipFile(folder / "y.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("c.txt", bytes(8 << 20))
    with pytest.raises(BenchError, match=r"c\.txt: .*unpack it by hand"):
        Tree(folder, ["y.zip"]).get("c.txt").read()


def test_a_compressed_archive_is_listed_without_a_copy_and_cleaned_after_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OVSS_BENCH_CACHE", str(tmp_path / "cache"))
    pack(folder / "a", folder / "x.tar.gz")
    file = Tree(folder, ["*.tar.gz"]).get("1.txt")
    assert file.size() == 15 and not list((tmp_path / "cache").rglob("*.tar"))
    assert file.read() == b"this is a/1.txt"
    (copy,) = (tmp_path / "cache").rglob("*.tar")
    assert f"decompressed once to {copy}" in capsys.readouterr().err
    assert clean()[0] == 2 and not copy.exists()
    assert Tree(folder, ["*.tar.gz"]).get("2.txt").read() == b"this is a/2.txt"


def test_archives_that_hold_nothing_wanted_stay_closed(folder):
    (folder / "Train.zip").write_text("half a download")
    assert Tree(folder, ["*.zip"], ["train.ZIP"]).odd == []
    assert len(Tree(folder, ["*.zip"]).odd) == 1


def test_what_is_not_opened_is_named_with_what_to_do(folder):
    for name in ("v.7z", "v.tar.xz", "w.zip.part", "y.zip.001"):
        (folder / name).write_bytes(b"")
    pack(folder / "a", folder / "inner.zip")
    with zipfile.ZipFile(folder / "outer.zip", "w") as packed:
        packed.write(folder / "inner.zip", "Val.zip")
    told = {text.partition(": ")[0].rpartition("/")[2]: text for text in Tree(folder, ["outer.zip"]).refused()}
    assert told.keys() == {"v.7z", "v.tar.xz", "w.zip.part", "y.zip.001", "outer.zip"}
    assert "unpack it there" in told["v.7z"] and "unfinished download" in told["w.zip.part"]
    assert "holds the archive Val.zip" in told["outer.zip"]


@pytest.mark.parametrize(("flags", "reason"), [(1, "encrypted"), (0, "compression")])
def test_members_that_cannot_be_inflated_are_to_be_unpacked_by_hand(folder, flags, reason):
    with zipfile.ZipFile(folder / "x.zip", "w") as packed:
        packed.writestr("c.txt", "contents")
    data = bytearray((folder / "x.zip").read_bytes())
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = data.index(mark)
        data[start + at] |= flags
        data[start + at + 2] = 0 if flags else 9  # Deflate64, as Windows packs what is large
    (folder / "x.zip").write_bytes(data)
    with pytest.raises(BenchError, match=rf"c\.txt: cannot be read.*{reason}.*unpack x\.zip by hand"):
        Tree(folder, ["x.zip"]).get("c.txt").read()


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w:gz"), ("x.tar.gz", "w:"), ("x.tgz", "w:gz")])
def test_the_content_tells_whether_a_tar_is_compressed(folder, name, mode):
    with tarfile.open(folder / name, mode) as packed:
        packed.add(folder / "b.txt", "c.txt")
    assert Tree(folder, ["x.tar"]).get("c.txt").read() == b"this is b.txt"


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_names_of_a_tar_in_another_encoding(folder, mode):
    with tarfile.open(folder / "x.tar", mode, encoding="gb18030", format=tarfile.GNU_FORMAT) as packed:
        packed.add(folder / "b.txt", "卫星/1.txt")
        packed.add(folder / "b.txt", "Val\\2.txt")
    tree = Tree(folder, ["x.tar"])
    assert tree.get("卫星/1.txt").read() == tree.get("Val/2.txt").read() == b"this is b.txt"


def test_a_zip_of_a_later_version_is_to_be_unpacked_by_hand(folder):
    with zipfile.ZipFile(folder / "x.zip", "w") as packed:
        packed.writestr("c.txt", "contents")
    data = bytearray((folder / "x.zip").read_bytes())
    data[data.index(b"PK\1\2") + 6] = 99
    (folder / "x.zip").write_bytes(data)
    (odd,) = Tree(folder, ["x.zip"]).odd
    assert odd.endswith("(zip file version 9.9); unpack x.zip by hand")


def test_names_that_windows_packs(folder):
    name = "卫星/test/1.txt".encode("gb18030")
    with zipfile.ZipFile(folder / "x.zip", "w") as packed:
        packed.writestr("x" * len(name), "one")
        packed.writestr("Val\\2.txt", "two")
    (folder / "x.zip").write_bytes((folder / "x.zip").read_bytes().replace(b"x" * len(name), name))
    tree = Tree(folder, ["x.zip"])
    assert tree.get("卫星/test/1.txt").read() == b"one"
    assert tree.get("Val/2.txt").read() == b"two"


def test_a_pointer_of_git_lfs_is_no_file(folder):
    (folder / "b.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BenchError, match="git lfs pull"):
        Tree(folder).get("b.txt").read()


def test_other_endings_and_letter_case_of_folders(folder):
    (folder / "a/scene.TIFF").write_text("scene")
    assert Tree(folder).get("A/scene.tif").read() == b"scene"
    assert Tree(folder).get("a/2.png") is None
    below = Tree(folder).at("a")
    assert below.get("1.txt") == Tree(folder).get("a/1.txt")
