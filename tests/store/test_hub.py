"""`bench push` and `bench pull` against a server of our own that answers as Hugging Face does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from store_helpers import stored

from bench.cli import main

GOOD, FAIR = [[40, 0], [0, 40]], [[20, 20], [0, 40]]
COMMIT = "a" * 40


class Hub:
    """Files of one dataset repository. answers: state to answer everything with, instead; silent: about files."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.answers: int | None = None
        self.silent = False
        self.url = ""

    def post(self, path: str, body: bytes) -> Any:
        if path.endswith("/repos/create"):
            self.made.append(json.loads(body))
            return {"url": f"{self.url}/datasets/me/results", "id": "me/results"}
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            return {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
        if "/commit/" in path:
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    self.files[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            return {"commitUrl": f"{self.url}/datasets/me/results/commit/{COMMIT}", "commitOid": COMMIT}
        return {}

    def get(self, path: str) -> Any:
        if "/resolve/" in path:
            return self.files[unquote(path.split(f"/resolve/{path.split('/resolve/')[1].split('/')[0]}/")[1])]
        if "/tree/" in path:
            return [
                {"type": "file", "path": name, "size": len(data), "oid": "b" * 40} for name, data in self.files.items()
            ]
        return {"id": "me/results", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(lambda: self.hub.post(self.path, body))

    def do_GET(self) -> None:
        self._answer(lambda: self.hub.get(self.path))

    do_HEAD = do_GET

    def _answer(self, make: Any) -> None:
        if self.hub.silent and "/resolve/" in self.path:
            return
        if self.hub.answers is not None:
            self.send_error(self.hub.answers)
            return
        made = make()
        content = made if isinstance(made, bytes) else json.dumps(made).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/octet-stream" if isinstance(made, bytes) else "application/json")
        self.send_header("ETag", f'"{len(content)}-{hash(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants, file_download

    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": found}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = found.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    for module in (constants, file_download):  # until 0.30, downloads read a copy of their own
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    stored(tmp_path / "results", "clip", "loveda", [GOOD, FAIR])
    stored(tmp_path / "results", "sclip", "vdd", [FAIR])
    return tmp_path / "results"


def cells(folder: Path) -> dict[str, bytes]:
    root = folder / "cells"
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != "imported.json"]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_what_is_pushed_is_pulled(hub: Hub, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "me/results", "--results", str(results), "--private"]) == 0, capsys.readouterr().err
    assert list(hub.files) == ["ovss-bench/results.zip"]
    assert hub.made[0]["type"] == "dataset" and hub.made[0].get("private", hub.made[0].get("visibility")) in (
        True,
        "private",
    )
    assert "2 cells: " in capsys.readouterr().out
    other = tmp_path / "other"
    assert main(["pull", "me/results", "--results", str(other)]) == 0, capsys.readouterr().err
    assert cells(other) == cells(results)


def test_some_cells_under_a_name_and_nothing_overwritten(
    hub: Hub, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "me/results", "--results", str(results), "--datasets", "vdd", "--name", "ours"]) == 0
    assert list(hub.files) == ["ovss-bench/ours.zip"]
    other = tmp_path / "other"
    stored(other, "sclip", "vdd", [GOOD])
    before = cells(other)
    capsys.readouterr()
    assert main(["pull", "me/results", "--name", "ours", "--results", str(other)]) == 2
    assert "is there with other content; --replace" in capsys.readouterr().err and cells(other) == before
    assert main(["pull", "me/results", "--name", "theirs", "--results", str(other)]) == 2
    assert "me/results: has no archive theirs; there are: ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "said"),
    [(401, "run `hf auth login`"), (403, "may not do that"), (404, "check owner, name and revision")],
)
def test_what_the_hub_refuses(
    answer: int, said: str, hub: Hub, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.answers = answer
    assert main(["push", "me/results", "--results", str(results)]) == 2
    assert f"me/results: Hugging Face answers {answer}" in (err := capsys.readouterr().err) and said in err


def test_a_hub_that_does_not_answer_is_one_line(
    results: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    for command in (["push", "me/results"], ["pull", "me/results"]):
        assert main([*command, "--results", str(results)]) == 2
        assert "me/results: Hugging Face cannot be reached" in capsys.readouterr().err


def test_a_hub_that_breaks_off_is_one_line(
    hub: Hub, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "me/results", "--results", str(results)]) == 0
    hub.silent = True
    assert main(["pull", "me/results", "--results", str(tmp_path / "other")]) == 2
    assert "me/results: Hugging Face cannot be reached" in capsys.readouterr().err


def test_mistakes(results: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["push", "me//results", "--results", str(results)], "not a name of a repository"),
        (["push", "me/results", "--results", str(results), "--name", "a/b"], "--name a/b: a plain name is needed"),
        (["push", "me/results", "--results", "nowhere"], "nothing to export"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
