"""What a login needs by role: data of the taxonomy in contracts, the strictest of somebody's roles."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

from clinic_shared import contracts
from pydantic import BaseModel, ConfigDict, Field


class RoleRules(BaseModel):
    """`sign_in` of one role."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    second_factor: Literal["required", "optional"] = "optional"
    sms: Literal["allowed", "refused"] = "refused"
    grace_hours: int = Field(default=0, ge=0)
    sessions: int = Field(default=5, ge=1)
    at_limit: Literal["end-oldest", "refuse"] = "end-oldest"
    idle_minutes: int = Field(default=30, ge=1)
    longest_hours: int = Field(default=24, ge=1)


@dataclass(frozen=True)
class Rules:
    """What counts for somebody with several roles."""

    second_factor_required: bool
    sms_allowed: bool
    grace: timedelta
    sessions: int
    refuses_at_limit: bool
    idle: timedelta
    longest: timedelta

    @classmethod
    def strictest(cls, roles: Iterable[RoleRules]) -> Self:
        every = list(roles) or [RoleRules()]
        requiring = [rules for rules in every if rules.second_factor == "required"]
        return cls(
            second_factor_required=bool(requiring),
            sms_allowed=all(rules.sms == "allowed" for rules in every),
            grace=timedelta(hours=min((rules.grace_hours for rules in requiring), default=0)),
            sessions=min(rules.sessions for rules in every),
            refuses_at_limit=any(rules.at_limit == "refuse" for rules in every),
            idle=timedelta(minutes=min(rules.idle_minutes for rules in every)),
            longest=timedelta(hours=min(rules.longest_hours for rules in every)),
        )


class SignInPolicy:
    def __init__(self, roles: Mapping[str, RoleRules], *, enforced: bool) -> None:
        self._roles = roles
        self.enforced = enforced

    @classmethod
    def load(cls, contracts_dir: Path, *, enforced: bool) -> Self:
        roles: Mapping[str, Any] = contracts.load(contracts_dir).taxonomy("roles")["roles"]
        rules = {code: RoleRules.model_validate(role.get("sign_in", {})) for code, role in roles.items()}
        return cls(rules, enforced=enforced)

    def rules_of(self, roles: Iterable[str]) -> Rules:
        return Rules.strictest(self._roles[code] for code in roles if code in self._roles)
