"""A web server of files, that does what its test says: slow, cut off, gone, or elsewhere."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """What is at a path. `wait` is waited for in the middle of the content; `cut` ends the connection there."""

    content: bytes = b""
    tag: str = '"1"'
    status: int = 200
    location: str = ""
    wait: threading.Event | None = None
    cut: bool = False


@dataclass
class Web:
    """The server's pages, and how often each was fetched."""

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    fetched: Counter[str] = field(default_factory=Counter)

    def put(self, path: str, content: bytes = b"", **given: Any) -> str:
        """Has something at a path; the URI."""
        self.pages[path] = Page(content, **given)
        return f"{self.url}/{path}"


@contextmanager
def served_web() -> Iterator[Web]:
    """A server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.begin()

        def do_GET(self) -> None:
            page = self.begin()
            half = len(page.content) // 2
            self.wfile.write(page.content[:half])
            self.wfile.flush()
            if page.status == 200:
                web.fetched[self.path.strip("/")] += 1
            if page.wait is not None:
                page.wait.wait(60)
            if page.cut:
                self.close_connection = True
            else:
                self.wfile.write(page.content[half:])

        def begin(self) -> Page:
            page = web.pages.get(self.path.partition("?")[0].strip("/"), Page(status=404))
            self.send_response(page.status)
            if page.location:
                self.send_header("Location", page.location)
            if page.tag:
                self.send_header("ETag", page.tag)
            self.send_header("Content-Length", str(len(page.content)))
            self.end_headers()
            return page

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield web
    server.shutdown()
    server.server_close()
    thread.join()
