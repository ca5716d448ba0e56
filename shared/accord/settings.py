"""Settings of one process, from environment variables that begin with ACCORD_. No secret has a default, and none is ever printed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from accord.secrets import parse_keys

LogLevel = Literal["debug", "info", "warning", "error"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SmtpSecurity = Literal["starttls", "tls", "none"]

_KEYS_FILE_BYTES_MAX = 10_000


class KafkaSettings(BaseModel):
    """What messaging needs to know of a cluster (see accord.messaging.kafka.client_options)."""

    model_config = ConfigDict(frozen=True)

    bootstrap_servers: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: str | None = None
    replication_factor: int = 1
    min_insync_replicas: int | None = None
    topic_prefix: str = ""
    partitions: int = 12


class OidcSettings(BaseModel):
    """An OpenID Connect issuer whose access tokens are accepted beside keys, and where its tokens say department and scopes."""

    model_config = ConfigDict(frozen=True)

    issuer: str
    audience: str
    jwks_url: str | None = None
    """None: found by the issuer's discovery document."""
    department_claim: str = "department"
    scopes_claim: str = "scope"
    jwks_max_age_s: float = 300.0
    timeout_s: float = 5.0


class SmtpSettings(BaseModel):
    """The mail server that notifications by e-mail are handed to, and their sender."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int
    security: SmtpSecurity
    sender: str
    username: str | None = None
    password: SecretStr | None = None
    cafile: Path | None = None


class Settings(BaseSettings):
    """Every service's settings; a service adds its own in a subclass. Units stand last in names."""

    model_config = SettingsConfigDict(
        env_prefix="ACCORD_", extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True
    )

    database_url: SecretStr
    """`postgresql://USER:PASSWORD@HOST:PORT/DATABASE`, several hosts apart by commas; each service has a database of its own."""
    database_pool_size: int = Field(default=10, ge=1, le=200)
    """Connections that one process holds at most."""
    database_lock_timeout_s: float = Field(default=5, gt=0, le=600)
    """How long a statement waits for a lock before its request is answered with 503."""

    kafka_bootstrap_servers: str
    """`HOST:PORT`, several apart by commas."""
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    """How brokers are spoken to."""
    kafka_sasl_mechanism: str | None = None
    """`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`."""
    kafka_sasl_username: str | None = None
    """With one of the `SASL_` protocols."""
    kafka_sasl_password: SecretStr | None = None
    """With one of the `SASL_` protocols."""
    kafka_ssl_cafile: str | None = None
    """Certificates that the brokers' are verified by. None: those of the system."""
    kafka_replication_factor: int = Field(default=1, ge=1)
    """Of topics that are created."""
    kafka_min_insync_replicas: int | None = Field(default=None, ge=1)
    """Of topics that are created. None: the broker's default."""
    kafka_topic_prefix: str = ""
    """Before the name of each topic, so that several installations can share a cluster."""
    kafka_partitions: int = Field(default=12, ge=1, le=10_000)
    """Of a topic that is created: as many processes can consume it at once. Later ones take the keys of new leads only."""

    relay_lanes: int = Field(default=1, ge=1, le=64)
    """Shares of the outbox that processes with the role `relay` publish side by side; the same in all of them."""

    api_keys_file: Path | None = None
    """YAML with the hashes of API keys, as `accord keys create` writes it; read again when it changes. None: no key is known."""
    oidc_issuer: str | None = None
    """An issuer whose access tokens are accepted beside keys."""
    oidc_audience: str | None = None
    """What a token's `aud` must name."""
    oidc_jwks_url: str | None = None
    """Where the issuer's keys are. None: found by its discovery document."""
    oidc_department_claim: str = "department"
    """The claim that holds `marketing` or `sales`."""
    oidc_scopes_claim: str = "scope"
    """The claim that holds the scopes, apart by blanks or as a list."""

    secrets_keys: SecretStr | None = None
    """Keys that encrypt the secrets of sources and subscriptions, in base64, 32 bytes each, apart by commas: the first encrypts, all
    decrypt. None: no source can have a secret, and nobody can subscribe."""
    secrets_keys_file: Path | None = None
    """A file that holds what `secrets_keys` would."""
    outbound_allow_private: bool = False
    """Whether records may be fetched from, and notifications sent to, private, loopback and link-local addresses, and without TLS there."""
    console_url: str | None = Field(default=None, pattern=r"^https?://[!-~]+$", max_length=500)
    """Where people read about a lead; notifications to people link there. None: they have no link."""
    smtp_host: str | None = None
    """The mail server for notifications by e-mail. None: there are none."""
    smtp_port: int | None = Field(default=None, ge=1, le=65_535)
    """None: 587, with `smtp_security` tls 465, with none 25."""
    smtp_security: SmtpSecurity = "starttls"
    """`starttls` and `tls` verify the server's certificate, and send neither credentials nor messages without it."""
    smtp_username: str | None = None
    """None: the server is not logged in to."""
    smtp_password: SecretStr | None = None
    """With `smtp_username`."""
    smtp_from: str | None = Field(default=None, pattern=r"^[!-?A-~]+@[A-Za-z0-9.-]+$", max_length=254)
    """The sender's address."""
    smtp_cafile: Path | None = None
    """Certificates that the server's is verified by. None: those of the system."""

    host: str = "127.0.0.1"
    """The address that is listened on."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """The port of the API; of probes and metrics in the roles `worker` and `relay`."""
    listen_fd: int | None = Field(default=None, ge=3)
    """A listening socket that whoever starts the process has opened and handed down: several processes then share one port."""
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """A port of its own for probes and metrics. None: they are on the port of the API."""
    log_level: LogLevel = "info"
    """The least of what is logged; one JSON object a line."""

    body_bytes_max: int = Field(default=8 * 1024 * 1024, ge=1)
    """Size of one body; more is 413."""
    body_bytes_in_flight_max: int | None = Field(default=None, ge=4 * 1024 * 1024)
    """Bytes of bodies that the process holds at once; past it a request gets 503 before its body is read. One caller has half of them at
    most, senders that are not known (hooks) a quarter. None: 64 MiB, or eight bodies of the largest size if that is more."""
    body_timeout_s: float = Field(default=60.0, gt=0)
    """How long a body may take that is kept in memory whole. Streamed ones (imports) may take as long as they need."""
    body_stall_s: float = Field(default=10.0, gt=0)
    """How long a body may stand still, or fall behind `body_rate_min_bytes_per_s`, before it is answered with 408."""
    body_rate_min_bytes_per_s: int = Field(default=4_096, ge=1)
    """Bytes a second that every body must come with, and with which an answer must be read that did not fit into the system's buffers."""
    head_bytes_max: int = Field(default=64 * 1024, ge=1_024)
    """Size of a request line and headers together; more is 431."""
    head_timeout_s: float = Field(default=10.0, gt=0)
    """How long a client may take from its connection, or from the first byte of a request, to the end of the head; then 408."""
    answer_stall_s: float = Field(default=60.0, gt=0)
    """How long a client may read nothing of its answer, or fall behind `body_rate_min_bytes_per_s`, before its connection is cut."""
    answer_bytes_unread_max: int = Field(default=64 * 1024 * 1024, ge=1)
    """Bytes of answers that wait to be read; past it the connection that has waited longest is cut."""
    keep_alive_s: int = Field(default=75, ge=1)
    """How long a connection may be idle between requests."""
    connections_max: int = Field(default=4_000, ge=1)
    """Open connections of clients. Past it the one that waits longest for its client makes room; if all are busy, the new one gets 503."""
    requests_in_flight_max: int = Field(default=1_000, ge=1)
    """Requests that are worked on at once; one more gets 503. A request that waits for its body is not worked on."""
    rate_limit_per_s: float | None = Field(default=None, gt=0)
    """Sustained requests per second of one key; None: no limit."""
    rate_limit_burst: int | None = Field(default=None, ge=1)
    """Requests that a key may make at once; None: two seconds' worth."""
    drain_s: float = Field(default=10.0, gt=0)
    """How long a process that is told to stop may take to finish what it has begun."""

    @model_validator(mode="after")
    def _whole_oidc(self) -> Settings:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("ACCORD_OIDC_ISSUER and ACCORD_OIDC_AUDIENCE belong together")
        return self

    @model_validator(mode="after")
    def _room_for_bodies(self) -> Settings:
        if self.body_bytes_in_flight < 4 * self.body_bytes_max:
            raise ValueError("ACCORD_BODY_BYTES_IN_FLIGHT_MAX must be at least four times ACCORD_BODY_BYTES_MAX")
        return self

    @field_validator("secrets_keys")
    @classmethod
    def _usable_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_keys(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _one_place_for_keys(self) -> Settings:
        if self.secrets_keys is not None and self.secrets_keys_file is not None:
            raise ValueError("ACCORD_SECRETS_KEYS and ACCORD_SECRETS_KEYS_FILE exclude each other")
        if self.secrets_keys_file is not None:
            self.encryption_keys()
        return self

    @model_validator(mode="after")
    def _whole_smtp(self) -> Settings:
        if (self.smtp_host is None) != (self.smtp_from is None):
            raise ValueError("ACCORD_SMTP_HOST and ACCORD_SMTP_FROM belong together")
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("ACCORD_SMTP_USERNAME and ACCORD_SMTP_PASSWORD belong together")
        return self

    def encryption_keys(self) -> list[bytes]:
        """The keys that encrypt secrets, the one that encrypts first; none where none are set. Raises ValueError, which quotes no key."""
        if self.secrets_keys is not None:
            return parse_keys(self.secrets_keys.get_secret_value())
        if self.secrets_keys_file is None:
            return []
        try:
            with self.secrets_keys_file.open(encoding="ascii") as file:
                text = file.read(_KEYS_FILE_BYTES_MAX)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"ACCORD_SECRETS_KEYS_FILE cannot be read: {type(error).__name__}") from None
        return parse_keys(text)

    @property
    def smtp(self) -> SmtpSettings | None:
        if self.smtp_host is None or self.smtp_from is None:
            return None
        return SmtpSettings(
            host=self.smtp_host,
            port=self.smtp_port or {"starttls": 587, "tls": 465, "none": 25}[self.smtp_security],
            security=self.smtp_security,
            sender=self.smtp_from,
            username=self.smtp_username,
            password=self.smtp_password,
            cafile=self.smtp_cafile,
        )

    @property
    def body_bytes_in_flight(self) -> int:
        """`body_bytes_in_flight_max`, or what it is by default."""
        return self.body_bytes_in_flight_max or max(64 * 1024 * 1024, 8 * self.body_bytes_max)

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=self.kafka_bootstrap_servers,
            security_protocol=self.kafka_security_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=self.kafka_sasl_password,
            ssl_cafile=self.kafka_ssl_cafile,
            replication_factor=self.kafka_replication_factor,
            min_insync_replicas=self.kafka_min_insync_replicas,
            topic_prefix=self.kafka_topic_prefix,
            partitions=self.kafka_partitions,
        )

    @property
    def oidc(self) -> OidcSettings | None:
        if self.oidc_issuer is None or self.oidc_audience is None:
            return None
        return OidcSettings(
            issuer=self.oidc_issuer,
            audience=self.oidc_audience,
            jwks_url=self.oidc_jwks_url,
            department_claim=self.oidc_department_claim,
            scopes_claim=self.oidc_scopes_claim,
        )
