"""What lab-integration reads from its environment beside what every service reads."""

from pathlib import Path

from clinic_shared.destinations import LOOPBACK, Destinations, networks_of
from clinic_shared.jurisdictions import TransferSettings
from clinic_shared.production import is_this_machine
from clinic_shared.settings import ServiceSettings
from pydantic import Field, SecretStr, field_validator


class LabSettings(TransferSettings, ServiceSettings):
    take_test_messages: bool | None = Field(
        default=None,
        description="whether messages for training and debugging (MSH-11 T, D) are filed like real ones, of"
        " laboratories without a `test_mode`; unset: everywhere but in production",
    )
    mllp_host: str | None = Field(
        default=None, description="where MLLP is listened to; unset: CLINIC_HTTP_HOST"
    )
    mllp_port: int = Field(default=0, ge=0, le=65535, description="of HL7 over MLLP, usually 2575; 0: none")
    mllp_tls_port: int = Field(default=0, ge=0, le=65535, description="the same over TLS; 0: none")
    mllp_certificate_file: Path | None = Field(default=None, description="PEM, ours, with its chain")
    mllp_key_file: Path | None = Field(default=None, description="PEM, of that certificate")
    mllp_client_ca_file: Path | None = Field(
        default=None, description="PEM; laboratories' certificates are asked for and checked against it"
    )
    mllp_connections: int = Field(default=200, ge=1, description="at most so many at once")
    mllp_idle_seconds: float = Field(
        default=86_400, gt=0, description="a connection on which nothing comes for so long is closed"
    )
    lab_files_dir: Path | None = Field(
        default=None, description="watched for files of laboratories: <client id>/in; unset: none are"
    )
    partner_refresh_seconds: float = Field(
        default=5.0, gt=0, description="how often partners are read again into memory"
    )

    laboratory_networks: str = Field(
        default="",
        description="networks of laboratories inside the house, comma separated: orders and calls go there and to the"
        " public internet; outside production to this machine too",
    )
    order_credentials: dict[str, SecretStr] = Field(
        default={}, description="`user:password` by a laboratory's id, for orders that are sent over HTTP"
    )

    @field_validator("laboratory_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        networks_of(text)
        return text

    @property
    def destinations(self) -> Destinations:
        own = () if self.environment == "production" else LOOPBACK
        return Destinations((*networks_of(self.laboratory_networks), *own))

    @property
    def plain_doors(self) -> list[str]:
        """The settings that let other machines in without TLS: production asks (`clinic_shared.production`)."""
        host = self.mllp_host or self.http_host
        return ["CLINIC_MLLP_PORT"] if self.mllp_port and not is_this_machine(host) else []

    @property
    def parks_test_messages(self) -> bool:
        return (
            self.environment == "production"
            if self.take_test_messages is None
            else not self.take_test_messages
        )
