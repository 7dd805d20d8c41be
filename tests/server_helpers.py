"""A local HTTP server for the tests of downloads."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONTENT = bytes(range(256)) * 4096  # a MiB
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Server:
    """A local HTTP server, which also is a proxy: an absolute address is the path /HOST/….

    breaks: bytes after which answers break off; codes: states to answer first
    redirects: path -> address; tokens: path -> the token that it asks for
    hub: paths that are answered as the hub of Hugging Face does, with a commit and the file's size
    """

    files: dict[str, bytes | Path] = field(default_factory=lambda: {"/data.bin": CONTENT})
    redirects: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    hub: set[str] = field(default_factory=set)
    ranges: bool = True
    etag: str | None = '"one"'
    breaks: int | None = None
    codes: list[int] = field(default_factory=list)
    content_range: str | None = None
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    seen: list[str | None] = field(default_factory=list)  # tokens

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked, path = handler.headers["Range"], handler.path
        if path.startswith("http://") and not path.startswith(self.url):
            path = path.removeprefix("http:/")
        self.requests.append((path, asked))
        self.seen.append(handler.headers["Authorization"])
        if self._refused(handler, path) or self._redirected(handler, path):
            return
        stored = self.files.get(path)
        code = self.codes.pop(0) if self.codes else 404 if stored is None else 200
        if code != 200 or stored is None:
            handler.send_error(code)
            return
        content = stored.read_bytes() if isinstance(stored, Path) else stored
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if not self.ranges or handler.headers["If-Range"] not in (None, self.etag):
            start, asked = 0, None
        if start >= len(content) and asked:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.end_headers()
            return
        handler.send_response(206 if asked else 200)
        if asked:
            whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.send_header("Content-Range", self.content_range or whole)
        if self.etag:
            handler.send_header("ETag", self.etag)
        if path in self.hub:
            handler.send_header("X-Repo-Commit", "0" * 40)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        stop = len(content) if self.breaks is None else start + self.breaks
        if handler.command == "GET":
            handler.wfile.write(content[start:stop])

    def _refused(self, handler: BaseHTTPRequestHandler, path: str) -> bool:
        """Answer a request that lacks the token: 401 without any, 403 with another one."""
        token, given = self.tokens.get(path), handler.headers["Authorization"]
        if token is None or given == f"Bearer {token}":
            return False
        handler.send_response(403 if given else 401)
        handler.send_header("X-Error-Code", "GatedRepo")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    def _redirected(self, handler: BaseHTTPRequestHandler, path: str) -> bool:
        """Answer a request whose file is in another place, as GitHub and the hub do; the hub tells the size."""
        target = self.redirects.get(path)
        if target is None:
            return False
        handler.send_response(302)
        handler.send_header("Location", target)
        if path in self.hub:
            stored = self.files[urlsplit(target).path]
            size = stored.stat().st_size if isinstance(stored, Path) else len(stored)
            for name, value in {"X-Repo-Commit": "0" * 40, "X-Linked-Size": str(size), "X-Linked-ETag": '"f"'}.items():
                handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A server on a free port of this machine, until the block ends."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # a client that goes away
                state.answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()
