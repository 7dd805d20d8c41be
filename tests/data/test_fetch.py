from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_helpers import CONTENT, MD5, Server, running_server

from bench.data import fetch as module
from bench.data.fetch import fetch, git_blob_hash, linked_images, md5_hash
from bench.errors import BenchError


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as state:
        yield state


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No waiting in tests; the seconds that would have been waited for. No proxy, either."""
    waited: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    monkeypatch.setenv("no_proxy", "*")
    return waited


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_file_is_fetched_checked_and_named_at_last(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "new" / "data.bin"
    assert fetch(f"{server.url}/data.bin", target, md5=MD5)
    assert target.read_bytes() == CONTENT and only_file(target.parent) == target
    assert not fetch(f"{server.url}/data.bin", target, md5=MD5)
    assert server.requests == [("/data.bin", None)]


def test_a_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.breaks = 300_000
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]
    assert pauses == [1, 1, 1]  # each attempt brought something


def test_a_later_run_goes_on_with_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    (tmp_path / "data.bin.part.version").write_text('"one"')
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert server.requests == [("/data.bin", "bytes=1000-")]
    assert only_file(tmp_path).read_bytes() == CONTENT


def test_what_was_received_whole_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert only_file(tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert only_file(tmp_path).read_bytes() == CONTENT


def test_another_version_on_the_server_starts_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "data.bin.part.version").write_text('"zero"')
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert only_file(tmp_path).read_bytes() == CONTENT


def test_a_file_that_has_become_shorter_starts_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert only_file(tmp_path).read_bytes() == CONTENT


def test_an_answer_with_another_part_of_the_file_is_not_appended(server: Server, tmp_path: Path) -> None:
    server.content_range = "bytes 5-1048575/1048576"
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]


def test_a_wrong_checksum_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=rf"wrong md5, {MD5} and not {'0' * 32}; it was deleted"):
        fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_that_is_there_is_not_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(BenchError, match=r"wrong md5, .* delete it to download it again"):
        fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert (tmp_path / "data.bin").read_bytes() == b"mine" and server.requests == []


def test_a_missing_address_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"/gone.zip: 404 Not Found; get data.bin by hand into"):
        fetch(f"{server.url}/gone.zip", tmp_path / "data.bin")
    assert len(server.requests) == 1 and list(tmp_path.iterdir()) == []


def test_a_busy_server_is_tried_again_with_growing_pauses(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.codes = [503, 429, 500]
    assert fetch(f"{server.url}/data.bin", tmp_path / "data.bin", md5=MD5)
    assert pauses == [1, 2, 4]


def test_without_a_network_it_gives_up_and_says_how_to_go_on(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(BenchError, match=r"the connection fails .* run the same command again"):
        fetch("http://127.0.0.1:9/data.bin", tmp_path / "data.bin")
    assert pauses == [1, 2, 4, 8]


def test_a_full_disk_is_noticed_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(BenchError, match=r"MB are needed and 0.0 MB are free"):
        fetch(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert not (tmp_path / "data.bin.part").exists()


def test_hashes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert git_blob_hash(file) == "ce013625030ba8dba906f756967f9e9ca394464a"  # of git hash-object
    assert md5_hash(file) == "b1946ac92492d2347c6235b4d2611184"


def test_links_of_a_page(server: Server) -> None:
    server.files["/a/index.html"] = (
        b'<a href="1.tiff">1</a> <a href="/b/2.PNG">2</a> <a href=1.tiff> <a href="x.txt"><a>'
    )
    assert linked_images(f"{server.url}/a/index.html") == [f"{server.url}/a/1.tiff", f"{server.url}/b/2.PNG"]
    server.files["/a/index.html"] = b"moved"
    with pytest.raises(BenchError, match="links to no image"):
        linked_images(f"{server.url}/a/index.html")
    with pytest.raises(BenchError, match=r"nowhere: cannot be read \(HTTP Error 404"):
        linked_images(f"{server.url}/nowhere")
