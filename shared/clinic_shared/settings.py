"""What every service reads from its environment (`CLINIC_*`), typed; secrets may come from files.

A setting `CLINIC_X` may be given as a file of that name in the folder `CLINIC_SECRETS_DIR`. In production,
secrets that were made for development are refused (`production.py`).
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from clinic_shared import production
from clinic_shared.http_server import DRAIN_SECONDS, GRACE_SECONDS

Environment = Literal["development", "test", "production"]
ENVIRONMENT_NAMES = AliasChoices("CLINIC_ENV", "CLINIC_ENVIRONMENT", "environment")
"""Two spellings: whoever writes the other one must not get a development system."""


class KeySettings(BaseSettings):
    """Where the keys that encrypt at rest are, and who can unwrap them; read by the operator's tools, too."""

    model_config = SettingsConfigDict(
        env_prefix="CLINIC_", extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    environment: Environment = Field(default="development", validation_alias=ENVIRONMENT_NAMES)
    secrets_dir: Path | None = Field(
        default=None, description="folder of secrets, one file each; read again when a file changes"
    )
    key_service_url: str | None = Field(
        default=None, description="Vault's address or a KMS endpoint, where data-keys.json names one"
    )
    key_service_key: str | None = Field(
        default=None, description="name of the transit key, or id of the KMS key"
    )
    key_service_secret: SecretStr | None = Field(
        default=None, description="Vault's token, or ID:SECRET[:SESSION] for KMS"
    )
    key_service_region: str = "us-east-1"
    key_lease_seconds: float = Field(
        default=900, ge=30, description="how long keys of a key service are used without asking it again"
    )


class ServiceSettings(KeySettings):
    encrypt_at_rest: bool = Field(
        default=True,
        description="false while the release before runs beside this one: it can't read what is encrypted",
    )
    http_host: str = "127.0.0.1"
    http_port: int = 0
    tls_certificate_file: Path | None = Field(
        default=None, description="PEM with its chain: HTTPS is served with it; read again when it is renewed"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM, unless it stands in that file")
    tls_authority_file: Path | None = Field(
        default=None,
        description="PEM; who vouches for our servers of HTTPS, instead of the machine's authorities",
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
    database_url: SecretStr = Field(description="postgresql://user:password@host:port/database")
    database_pool_size: int = Field(default=8, ge=1, le=64)
    database_pool_timeout_seconds: float = Field(
        default=5, gt=0, description="how long a request waits for a connection before it gets 503"
    )
    amqp_url: SecretStr = Field(description="amqp://user:password@host:port/vhost")
    amqp_management_url: SecretStr | None = Field(
        default=None, description="http://user:password@host:port of the management API; optional"
    )
    takes_unnamed_senders: bool = Field(
        default=False,
        description="take events that name no sender: while the release before, which doesn't, still publishes",
    )
    relay_lease_seconds: float = Field(
        default=10, ge=1, description="after how long of silence a relay's shards go to the other relays"
    )
    event_retention_days: int = Field(
        default=400, ge=31, description="how long the event log is kept; state events of older ones stay"
    )
    inbox_retention_days: int = Field(
        default=400, ge=31, description="how long a consumer knows what took effect: longer than any redrive"
    )
    legal_hold: bool = Field(default=False, description="nothing of the event log or inbox is dropped")
    enforce_sign_in_policy: bool | None = Field(
        default=None,
        description="whether logins need what contracts/taxonomy/roles.yaml asks of their roles, and sensitive"
        " acts two factors shown within five minutes; by default in production",
    )
    internal_tokens_only: bool = Field(
        default=False,
        description="whether only the gateway's tokens for this service are taken; not while a gateway runs that"
        " passes on its callers' own",
    )
    jwks_url: str | None = None
    token_issuer: str = "https://clinic.invalid"  # noqa: S105  # an address, no secret
    token_audience: str = "clinic-api"  # noqa: S105  # a name, no secret
    log_level: str = "INFO"
    contracts_dir: Path = Path(__file__).resolve().parents[2] / "contracts"
    dead_letters_discarded_alone: int = Field(
        default=20, ge=0, description="so many dead letters may one person discard in a day"
    )
    subscribed_services: str = Field(
        default="", description="installed services, comma separated; empty means all of subscriptions.yaml"
    )

    @model_validator(mode="after")
    def _inbox_outlives_the_log(self) -> Self:
        # What is resent from the log must be known here, or it would take effect twice.
        if self.inbox_retention_days < self.event_retention_days:
            raise ValueError("CLINIC_INBOX_RETENTION_DAYS is less than CLINIC_EVENT_RETENTION_DAYS")
        return self

    @model_validator(mode="after")
    def _refuse_what_is_unfit_for_production(self) -> Self:
        if self.environment == "production":
            production.refuse_what_is_unfit(self)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, file_secret_settings

    @classmethod
    def load(cls) -> "ServiceSettings":
        """Read the environment; the folder of secrets is itself named by the environment."""
        return cls(_secrets_dir=os.environ.get("CLINIC_SECRETS_DIR"))

    @property
    def sign_in_policy_is_enforced(self) -> bool:
        if self.enforce_sign_in_policy is not None:
            return self.enforce_sign_in_policy
        return self.environment == "production"

    @property
    def sqlalchemy_url(self) -> str:
        url = self.database_url.get_secret_value()
        return url.replace("postgresql://", "postgresql+psycopg://", 1)

    def redacted(self) -> dict[str, object]:
        """Return the effective configuration, fit for the log: secrets are shown as asterisks."""
        return self.model_dump(mode="json")
