"""Audit's own settings."""

from pathlib import Path

from clinic_shared.settings import ServiceSettings
from pydantic import Field


class AuditSettings(ServiceSettings):
    audit_signing_key_file: Path | None = Field(
        default=None, description="by default checkpoint-key.pem in CLINIC_SECRETS_DIR"
    )
    audit_witness_file: Path | None = Field(
        default=None, description="where signed checkpoints are kept beside the database: on another volume"
    )
    audit_syslog_address: str | None = Field(
        default=None, pattern=r"^.+:\d+$", description="host:port of an audit repository: syslog over TLS"
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
