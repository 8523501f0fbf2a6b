"""What the gateway reads from its environment (`CLINIC_*`). It has no database."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from clinic_shared import production
from clinic_shared.destinations import Network, networks_of
from clinic_shared.http_server import DRAIN_SECONDS, GRACE_SECONDS
from clinic_shared.secret_files import PREFIX, with_secret_files
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from clinic_gateway.rate_rules import DEFAULT_FILE

MEBIBYTE = 1024 * 1024


class GatewaySettings(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    environment: Literal["development", "test", "production"] = "development"
    secrets_dir: Path | None = Field(
        default=None, description="folder of secrets, one file each; read again when a file changes"
    )
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    tls_certificate_file: Path | None = Field(
        default=None, description="PEM with its chain: HTTPS is served with it; read again when it is renewed"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM, unless it stands in that file")
    tls_authority_file: Path | None = Field(
        default=None, description="PEM; who vouches for our services, instead of the machine's authorities"
    )
    client_authorities_file: Path | None = Field(
        default=None,
        description="PEM; clients are asked for a certificate that one of these vouches for, or is one of these"
        " itself: for tokens that are bound to it. Nobody needs one",
    )
    certificate_proxies: str = Field(
        default="",
        description="networks of proxies that end TLS before us, comma separated: theirs, and nobody else's,"
        " `Client-Cert` (RFC 9440) is believed",
    )
    network_is_encrypted: bool = Field(
        default=False,
        description="whether something below us encrypts between machines, so that addresses may be plain",
    )
    drain_seconds: float = Field(
        default=DRAIN_SECONDS, ge=0, description="after SIGTERM: unready, but still answering"
    )
    grace_seconds: float = Field(
        default=GRACE_SECONDS, gt=0, description="after that, for the requests under way"
    )
    url: str = Field(default="", description="the address clients use; only shown in documentation")
    upstreams: str = Field(
        default="", description="addresses of services: `identity=http://host:port,patients=http://host:port`"
    )
    subscribed_services: str = Field(
        default="", description="installed services, comma separated; of `upstreams`, no others then"
    )
    amqp_url: SecretStr | None = Field(
        default=None, description="for SessionRevoked; without it tokens live until they expire"
    )
    jwks_url: str | None = Field(default=None, description="by default identity's own")
    token_issuer: str = "https://clinic.invalid"  # noqa: S105  # who it is, not a secret
    token_audience: str = "clinic-api"  # noqa: S105
    contracts_dir: Path = Path(__file__).resolve().parents[2] / "contracts"
    log_level: str = "INFO"
    access_log: bool = False

    stream_ring: int = Field(default=10_000, ge=1, description="changes kept for streams that come back")
    stream_backlog: int = Field(default=500, ge=1, description="changes that a slow stream may be behind")
    stream_heartbeat_seconds: float = Field(default=15, gt=0)
    streams_per_subject: int = Field(default=10, ge=1)

    trusted_hops: int = Field(
        default=0, ge=0, description="proxies in front that append to X-Forwarded-For; 0 trusts nobody's"
    )
    rate_address_per_second: float = Field(default=1000, ge=0, description="0 switches a limit off")
    rate_subject_per_second: float = Field(default=500, ge=0)
    rate_sign_in_per_second: float = Field(default=10, ge=0)
    rate_burst_seconds: float = Field(default=2, gt=0, description="how much of a limit may come at once")
    rate_sign_in_burst: int = Field(default=60, ge=1)
    rate_limits_file: Path = Field(default=DEFAULT_FILE, description="limits of single routes")

    body_limit_bytes: int = MEBIBYTE
    lab_body_limit_bytes: int = 10 * MEBIBYTE
    document_body_limit_bytes: int = 50 * MEBIBYTE
    connections_per_upstream: int = Field(default=100, ge=1)
    connect_timeout_seconds: float = 2
    answer_timeout_seconds: float = Field(default=30, description="how long a service may stay silent")
    deadline_seconds: float = Field(default=20, gt=0, description="from a request's arrival to its answer")
    intake_deadline_seconds: float = Field(default=30, gt=0)
    document_deadline_seconds: float = Field(default=300, gt=0)
    load_shedding: bool = Field(default=True, description="whether an overloaded service is protected")
    reference_retry_seconds: float = Field(
        default=2, description="design rule 8: register-then-book just works"
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read exactly `environ`: the supervisor forks, so the process's own environment is not the truth.

        `CLINIC_ENV` counts before `CLINIC_ENVIRONMENT`.
        """
        names = {PREFIX + name.upper(): name for name in cls.model_fields} | {"CLINIC_ENV": "environment"}
        given = with_secret_files(environ)
        return cls.model_validate({name: given[key] for key, name in names.items() if key in given})

    @model_validator(mode="after")
    def _refuse_what_is_unfit_for_production(self) -> Self:
        if self.environment == "production":
            production.refuse_what_is_unfit(self)
        return self

    @field_validator("certificate_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        networks_of(text)
        return text

    @property
    def certificate_proxy_networks(self) -> tuple[Network, ...]:
        return networks_of(self.certificate_proxies)

    @property
    def upstream_urls(self) -> dict[str, str]:
        """Return the addresses of the installed services."""
        installed = {name.strip() for name in self.subscribed_services.split(",") if name.strip()}
        pairs = [pair.split("=", 1) for pair in self.upstreams.split(",") if pair.strip()]
        urls = {name.strip(): url.strip().rstrip("/") for name, url in pairs}
        return {name: url for name, url in urls.items() if not installed or name in installed}

    @property
    def effective_jwks_url(self) -> str | None:
        identity = self.upstream_urls.get("identity")
        return self.jwks_url or (f"{identity}/.well-known/jwks.json" if identity else None)
