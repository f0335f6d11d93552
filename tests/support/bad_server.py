"""A local web server that can be told to misbehave."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `body` under every path, with resumption; `faults` are served first, one per request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.faults: list[str] = []
        self.ranges: list[str | None] = []  # the Range header of each request
        self.delay = 0.0  # seconds before an answer

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        fault = self.server.faults.pop(0) if self.server.faults else None
        time.sleep(self.server.delay)
        body = self.server.body
        if fault in {"404", "503"}:
            self.send_error(int(fault))
            return
        if fault == "truncated":  # a shorter file, honestly announced
            body = body[: len(body) // 2]
        start = 0
        if asked is not None and fault != "no ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
        if fault == "bad redirect":
            self.send_response(302)
            self.send_header("Location", "http://[::1")
            self.end_headers()
            return
        if fault == "packed":
            body, start = gzip.compress(body), 0
        self.send_response(206 if start else 200)
        if start:
            first = 0 if fault == "other range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if fault == "packed":
            self.send_header("Content-Encoding", "gzip")
        if fault and fault.startswith("length "):
            self.send_header("Content-Length", fault.removeprefix("length "))
        elif fault != "endless":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if fault == "slow":
            for place in range(100):
                self.wfile.write(body[place : place + 1])
                time.sleep(0.05)
            return
        stop = (start + len(body)) // 2 if fault == "dropped" else len(body)
        self.wfile.write(body[start:stop])
        while fault == "endless":
            self.wfile.write(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the other side has had enough
            super().handle()

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs within the block."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
