"""A local HTTP server for the tests of downloads."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = bytes(range(256)) * 4096  # a MiB
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Server:
    """A local HTTP server. breaks: bytes after which answers break off; codes: states to answer first."""

    files: dict[str, bytes] = field(default_factory=lambda: {"/data.bin": CONTENT})
    ranges: bool = True
    etag: str | None = '"one"'
    breaks: int | None = None
    codes: list[int] = field(default_factory=list)
    content_range: str | None = None
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.requests.append((handler.path, asked))
        content = self.files.get(handler.path)
        code = self.codes.pop(0) if self.codes else 404 if content is None else 200
        if code != 200 or content is None:
            handler.send_error(code)
            return
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
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        stop = len(content) if self.breaks is None else start + self.breaks
        handler.wfile.write(content[start:stop])


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A server on a free port of this machine, until the block ends."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # a client that goes away
                state.answer(self)

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    http.shutdown()
    http.server_close()
