"""What docker-compose.yml needs from outside: passwords and an encryption key made once, kept in a file that only its owner reads."""

import secrets
from pathlib import Path

from accord_local.files import write_atomically
from accord_local.keys import ensure_dev_keys, new_encryption_key, read_env

PASSWORD_BYTES = 24
PASSWORD_VARIABLES = (
    "ACCORD_POSTGRES_PASSWORD",
    "ACCORD_INTAKE_DB_PASSWORD",
    "ACCORD_QUALIFICATION_DB_PASSWORD",
    "ACCORD_SLA_DB_PASSWORD",
    "ACCORD_METRICS_DB_PASSWORD",
)
ENCRYPTION_KEYS_VARIABLE = "ACCORD_SECRETS_KEYS"


def ensure_compose_env(data_dir: Path) -> Path:
    """Make `compose.env` (mode 600), the dev keys and the keys file, each where it is missing; the first's path."""
    path = data_dir / "compose.env"
    present = read_env(path)
    missing = {name: secrets.token_urlsafe(PASSWORD_BYTES) for name in PASSWORD_VARIABLES if name not in present}
    if ENCRYPTION_KEYS_VARIABLE not in present:
        missing[ENCRYPTION_KEYS_VARIABLE] = new_encryption_key()
    if missing:
        lines = [f"{name}={value}" for name, value in (present | missing).items()]
        write_atomically(path, "\n".join(lines) + "\n")
    path.chmod(0o600)
    ensure_dev_keys(data_dir / "dev-keys.env", data_dir / "api-keys.yaml")
    return path
