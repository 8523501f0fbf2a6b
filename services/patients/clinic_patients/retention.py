"""What may be erased when, by the law of the deployment's jurisdiction. Pure; the law stands in `retention.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from clinic_patients.protection import RetentionClass

_FILE = Path(__file__).with_name("retention.yaml")
_YEAR = timedelta(days=365.25)


class Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    erasable_on_request: bool = False
    kept_years: int = Field(default=0, ge=0)
    basis: str


class Profile(BaseModel):
    """One jurisdiction's rules, by class of data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_days: int = Field(gt=0)
    contact: Rule
    identity: Rule

    def rule(self, retention_class: RetentionClass) -> Rule:
        return self.contact if retention_class is RetentionClass.CONTACT else self.identity


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a class may be erased now; `because` names the law, `until` when it can be asked again."""

    may_be_erased: bool
    because: str
    until: datetime | None = None


@cache
def profiles() -> Mapping[str, Profile]:
    return TypeAdapter(dict[str, Profile]).validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))


def judge(rule: Rule, *, last_changed_at: datetime, on_hold: bool, now: datetime) -> Verdict:
    """Say what becomes of one class of a patient's data. A legal hold keeps everything."""
    if on_hold:
        return Verdict(may_be_erased=False, because="legal hold")
    until = last_changed_at + rule.kept_years * _YEAR
    if rule.erasable_on_request or until <= now:
        return Verdict(may_be_erased=True, because=rule.basis)
    return Verdict(may_be_erased=False, because=rule.basis, until=until)
