"""The command `accord-probe PORT [PATH]` of container health checks: exit code 0 if the probe answers 200. Standard library only,
since it starts every few seconds."""

import http.client
import sys

_TIMEOUT_S = 4.0


def main() -> None:
    """Ask this machine's port; says on stderr what is not ready."""
    port = sys.argv[1] if len(sys.argv) > 1 else "8000"
    path = sys.argv[2] if len(sys.argv) > 2 else "/readyz"
    if not port.isdigit():
        sys.exit("usage: accord-probe PORT [PATH]")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(500).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{path}: {type(error).__name__}")
    finally:
        connection.close()
    if answer.status != 200:
        sys.exit(f"{path}: {answer.status} {text}")
