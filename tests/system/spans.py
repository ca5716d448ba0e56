"""A collector of OpenTelemetry's spans: an OTLP/HTTP server in the test process that keeps what it is sent."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BYTES_MAX = 64 * 1024 * 1024
"""What is kept at most; a run sends a few megabytes."""


class Collector:
    """What was exported so far, as the protobuf bytes of each request."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._lock = threading.Lock()
        self.bytes_count = 0

    def take(self, body: bytes) -> None:
        with self._lock:
            self.bytes_count += len(body)
            if self.bytes_count <= BYTES_MAX:
                self._bodies.append(body)

    def text(self) -> str:
        """All of it, with bytes that are no text replaced; strings stand in protobuf as they are."""
        with self._lock:
            return b"\n".join(self._bodies).decode("utf-8", "replace")


@contextlib.contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """The collector, and the endpoint for OTEL_EXPORTER_OTLP_ENDPOINT."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """It says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="spans", daemon=True)
    thread.start()
    try:
        yield collector, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
