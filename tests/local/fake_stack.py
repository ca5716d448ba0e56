"""Runs the real stack runner over two stand-in services. Arguments: data dir, port base, Kafka port, packages' dir.

Kafka port 0: PostgreSQL and Kafka are somebody else's (the stand-ins never ask them).
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

from accord_local.cli import run_stack
from accord_local.errors import LocalError
from accord_local.services import ServiceSpec
from accord_local.stack import StackOptions

SERVICE = """
import http.server, json, os, signal, sys, pathlib
name, role = pathlib.Path(__file__).parent.name, sys.argv[1]
print(name, role, "password=hunter2-not-for-eyes", flush=True)
if os.environ.get("FAKE_FAIL") == f"{name}-{role}":
    sys.exit(f"{name} cannot {role}")
if role == "migrate":
    sys.exit(0)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"status": "ready", "database_url": os.environ["ACCORD_DATABASE_URL"]}).encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((os.environ["ACCORD_HOST"], int(os.environ["ACCORD_PORT"])), Handler).serve_forever()
"""


DATABASES_ELSEWHERE = "postgresql://127.0.0.1:1/{database}"


def write_package(packages: Path, name: str) -> None:
    """A package that answers to `python -m name.main migrate` and `all`."""
    package = packages / name
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "main.py").write_text(SERVICE)


def main(data_dir: Path, port_base: int, kafka_port: int, packages: Path) -> int:
    """Exit code 1 and one line when the stack can't start."""
    specs = (ServiceSpec("alpha", "alpha", "intake", 0), ServiceSpec("beta", "beta", "sla", 1))
    for spec in specs:
        write_package(packages, spec.package)
    os.environ["PYTHONPATH"] = str(packages)
    options = StackOptions(data_dir, port_base=port_base, kafka_port=kafka_port, services=specs)
    if kafka_port == 0:
        options = replace(options, database_url_template=DATABASES_ELSEWHERE, kafka="127.0.0.1:1")
    try:
        run_stack(options)
    except LocalError as error:
        print(f"accord: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
