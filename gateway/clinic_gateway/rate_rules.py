"""The rate limits of single routes, as data: `rate_limits.yaml` or the operator's own file."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from clinic_gateway.limits import RateLimit
from clinic_gateway.routes import ROUTES

DEFAULT_FILE = Path(__file__).with_name("rate_limits.yaml")
By = Literal["address", "caller"]


class RateRule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9-]*$")]
    by: By
    paths: Annotated[list[str], Field(min_length=1)]
    methods: list[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]] = []
    """None means all."""
    per_second: Annotated[float, Field(gt=0)]
    burst: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class RouteLimit:
    limit: RateLimit
    by: By
    methods: frozenset[str]

    def holds_for(self, method: str) -> bool:
        return not self.methods or method in self.methods


def read_rules(file: Path) -> list[RateRule]:
    """Raises ValueError for a file that isn't one, or that names a path nobody routes."""
    rules = TypeAdapter(list[RateRule]).validate_python(
        yaml.safe_load(file.read_text(encoding="utf-8")) or []
    )
    known = {route.prefix for route in ROUTES}
    for rule in rules:
        if unknown := set(rule.paths) - known:
            raise ValueError(f"{file}: {rule.name}: no such path in the gateway's routes: {min(unknown)}")
    return rules


def limits_by_prefix(rules: list[RateRule]) -> Mapping[str, list[RouteLimit]]:
    """Make the limits. A rule with several paths counts them together."""
    found = defaultdict(list)
    for rule in rules:
        limit = RouteLimit(
            RateLimit(rule.name, rule.per_second, rule.burst), rule.by, frozenset(rule.methods)
        )
        for path in rule.paths:
            found[path].append(limit)
    return dict(found)
