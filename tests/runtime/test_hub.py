"""The hub that is configured: its address, its token, and whether it answers."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_helpers import CONTENT, MD5, Server, running_server

from bench.data.fetch import fetch
from bench.errors import BenchError
from bench.runtime.hub import answers, hub_endpoint, hub_headers, on_hub

FILE = "/owner/model/resolve/main/model.bin"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A mirror of the hub, whose files are behind a redirect to a storage; no proxy."""
    for name in ("http_proxy", "https_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    urllib.request.install_opener(None)  # type: ignore[arg-type]  # it remembers the proxies of its first use
    with running_server() as state:
        monkeypatch.setenv("HF_ENDPOINT", f"{state.url}/")
        state.redirects[FILE] = f"{state.url}/data.bin"
        yield state
    urllib.request.install_opener(None)  # type: ignore[arg-type]


def test_a_mirror_stands_for_the_hub_and_for_nothing_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_endpoint() == server.url
    assert on_hub(f"https://huggingface.co{FILE}") == server.url + FILE
    assert on_hub("https://huggingface.com/a") == "https://huggingface.com/a"
    monkeypatch.delenv("HF_ENDPOINT")
    assert on_hub(f"https://huggingface.co{FILE}") == f"https://huggingface.co{FILE}"


def test_a_file_of_the_hub_comes_from_the_mirror(server: Server, tmp_path: Path) -> None:
    assert fetch(f"https://huggingface.co{FILE}", tmp_path / "model.bin", md5=MD5)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [FILE, "/data.bin"]


def test_the_token_is_for_the_hub_alone(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage that it redirects to answers 403 to whoever shows it the token."""
    server.tokens[FILE] = "hf_right"
    with pytest.raises(BenchError, match=r"401 .*accept its terms there, then run `hf auth login` or set HF_TOKEN"):
        fetch(f"https://huggingface.co{FILE}", tmp_path / "model.bin")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(BenchError, match=r"403 .*with the account of your token"):
        fetch(f"https://huggingface.co{FILE}", tmp_path / "model.bin")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    server.seen.clear()
    assert fetch(f"https://huggingface.co{FILE}", tmp_path / "model.bin")
    assert server.seen == ["Bearer hf_right", None]
    assert hub_headers("https://zenodo.org/a.zip") == {} and hub_headers(f"{server.url}.evil.org/a") == {}


def test_the_host_that_is_asked_is_the_one_of_the_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(server.url) and not answers("http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert answers("http://nowhere.example")  # the proxy may know it


def test_a_proxy_is_asked_for_the_whole_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.files["/data.example/a.bin"] = b"behind the proxy"
    assert fetch("http://data.example/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"behind the proxy"
