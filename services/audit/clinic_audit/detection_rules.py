"""The rules of detection as data (`detection.yaml`): thresholds that an operator may change, each checked."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field

DEFAULT_FILE = Path(__file__).with_name("detection.yaml")

Count = Annotated[int, Field(gt=0)]


class Rule(StrEnum):
    UNUSUAL_VOLUME = "unusual-volume"
    WATCHED_PATIENT = "watched-patient"
    COLLEAGUE = "colleague"
    OWN_NAME = "own-name"
    OFF_HOURS = "off-hours"
    IMPOSSIBLE_TRAVEL = "impossible-travel"
    MASS_EXPORT = "mass-export"
    REPEATED_DENIALS = "repeated-denials"
    FAILED_LOGINS = "failed-logins"


class Severity(StrEnum):
    MEDIUM = "medium"
    HIGH = "high"


class Threshold(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Severity


class UnusualVolume(Threshold):
    per_hour: Count
    per_day: Count
    times_usual: float = Field(ge=1)


class OffHours(Threshold):
    from_hour: int = Field(ge=0, le=23)
    until_hour: int = Field(ge=1, le=24)
    patients: Count


class ImpossibleTravel(Threshold):
    hours: Count


class MassExport(Threshold):
    resource_types: frozenset[str]
    exports_per_day: Count
    patients_at_once: Count


class RepeatedDenials(Threshold):
    denials: Count
    minutes: Count


class FailedLogins(Threshold):
    failures: Count
    minutes: Count
    accounts: Count


class Rules(BaseModel):
    """A missing or misspelt rule is an error at the start, never a rule that is silently off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: str
    history_days: Count
    settled_days: Count
    explained_by: frozenset[str]
    work_minutes: Count
    unusual_volume: UnusualVolume
    watched_patient: Threshold
    colleague: Threshold
    own_name: Threshold
    off_hours: OffHours
    impossible_travel: ImpossibleTravel
    mass_export: MassExport
    repeated_denials: RepeatedDenials
    failed_logins: FailedLogins

    @classmethod
    def load(cls, file: Path | None = None) -> Self:
        return cls.model_validate(yaml.safe_load((file or DEFAULT_FILE).read_text(encoding="utf-8")))

    @property
    def time_zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone)

    def severities(self) -> Mapping[Rule, Severity]:
        return {rule: getattr(self, rule.replace("-", "_")).severity for rule in Rule}
