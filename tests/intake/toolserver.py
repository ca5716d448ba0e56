"""A tool's API as a real HTTP server on this machine, whose answers a test writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

import orjson


@dataclass
class Reply:
    """One answer. `chunks`: the body in pieces without a declared length; `before` is called first, and may take its time."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Callable[[], Iterator[bytes]] | None = None
    before: Callable[[], object] | None = None


def json_reply(document: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, orjson.dumps(document), headers)


class ToolServer:
    """Answers by path; the last answer of a path is given again and again. What was asked is in `asked`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._replies: dict[str, list[Reply]] = {}
        self._lock = threading.Lock()
        self.default = Reply(404)

    def answer(self, path: str, *replies: Reply) -> None:
        """What is answered under a path (without its query), in order."""
        with self._lock:
            self._replies[path] = list(replies)

    def serve(self, target: str, headers: dict[str, str]) -> Reply:
        with self._lock:
            self.asked.append((target, headers))
            replies = self._replies.get(target.partition("?")[0], [self.default])
            return replies.pop(0) if len(replies) > 1 else replies[0]


def _handler(server_of: Callable[[], ToolServer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = server_of().serve(self.path, headers)
            if reply.before is not None:
                reply.before()
            try:
                self._send(reply)
            except OSError:
                self.close_connection = True

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name.replace("_", "-"), value)
            if reply.chunks is not None:
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in reply.chunks():
                    self.wfile.write(piece)
                self.close_connection = True
                return
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            """Nothing is written."""

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what some tests are about."""


@contextmanager
def tool_server(tls: SSLContext | None = None) -> Iterator[ToolServer]:
    """A running server."""
    made: list[ToolServer] = []
    httpd = _Quiet(("127.0.0.1", 0), _handler(lambda: made[0]))
    if tls is not None:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    made.append(ToolServer(f"{'https' if tls else 'http'}://127.0.0.1:{httpd.server_address[1]}"))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made[0]
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
