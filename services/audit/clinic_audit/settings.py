"""Audit's own settings."""

from pathlib import Path

from clinic_shared.settings import ServiceSettings


class AuditSettings(ServiceSettings):
    audit_signing_key_file: Path | None = None
    audit_log_origin: str = "polyclinic.invalid/audit"
