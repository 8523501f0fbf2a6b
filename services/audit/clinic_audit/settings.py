"""Audit's own settings. Those of its archives are read by `clinic audit archive`, too."""

from pathlib import Path
from typing import Self

from clinic_shared.jurisdictions import Jurisdiction
from clinic_shared.settings import ServiceSettings
from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clinic_audit.retention import ONLINE_DAYS, floors


class ArchiveSettings(BaseSettings):
    """What may leave the log, when, and where to."""

    model_config = SettingsConfigDict(env_prefix="CLINIC_", extra="ignore", frozen=True)

    audit_archive_dir: Path | None = Field(
        default=None,
        description="where months older than the online period are archived; without it all stay",
    )
    audit_online_days: int = Field(
        default=400, ge=ONLINE_DAYS, description="how long records stay in the log, searchable at once"
    )
    jurisdiction: Jurisdiction = Field(
        default="gdpr", description="whose law says how long records are kept at least (retention.yaml)"
    )
    audit_kept_years: int | None = Field(
        default=None, le=100, description="how long archives are kept; by default what the jurisdiction asks"
    )
    audit_syslog_address: str | None = Field(
        default=None, pattern=r"^.+:\d+$", description="host:port of an audit repository: syslog over TLS"
    )

    @model_validator(mode="after")
    def _keeps_what_the_law_asks(self) -> Self:
        floor = floors()[self.jurisdiction]
        if self.kept_years < floor.kept_years:
            raise ValueError(
                f"CLINIC_AUDIT_KEPT_YEARS is less than {floor.kept_years}, the floor of {self.jurisdiction}"
            )
        return self

    @property
    def kept_years(self) -> int:
        return (
            floors()[self.jurisdiction].kept_years if self.audit_kept_years is None else self.audit_kept_years
        )


class AuditSettings(ArchiveSettings, ServiceSettings):
    audit_signing_key_file: Path | None = Field(
        default=None, description="by default checkpoint-key.pem in CLINIC_SECRETS_DIR"
    )
    audit_witness_file: Path | None = Field(
        default=None, description="where signed checkpoints are kept beside the database: on another volume"
    )
    audit_syslog_ca_file: Path | None = Field(
        default=None, description="PEM of the authority that signed its certificate"
    )
    audit_detection_file: Path | None = Field(
        default=None, description="other thresholds of detection, in the shape of detection.yaml"
    )
    audit_log_origin: str = "polyclinic.invalid/audit"

    @property
    def signing_key_file(self) -> Path | None:
        if self.audit_signing_key_file is None and self.secrets_dir is not None:
            return self.secrets_dir / "checkpoint-key.pem"
        return self.audit_signing_key_file
