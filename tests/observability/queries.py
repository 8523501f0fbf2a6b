"""Every PromQL query that we ship, and the names of metrics and labels in it.

promtool of Debian 12 shows no syntax tree, so names are read off the tokens; whether a query is valid at all,
Prometheus itself says.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

OBSERVABILITY = Path(__file__).resolve().parents[2] / "deploy" / "observability"
RULES = OBSERVABILITY / "prometheus" / "rules"
RULE_TESTS = OBSERVABILITY / "prometheus" / "tests"
DASHBOARDS = OBSERVABILITY / "grafana" / "dashboards"
RUNBOOKS = OBSERVABILITY.parent / "runbooks"

TARGET_LABELS = frozenset(("job", "instance", "service", "role"))
"""What Prometheus adds when it scrapes."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_TOKEN = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*|[{}()\[\],]|[0-9][0-9a-z.]*|[=!~<>+*/^%-]+|\"\"")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_GROUPINGS = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))
_WORDS = _GROUPINGS | {"and", "or", "unless", "bool", "offset", "atan2", "Inf", "NaN"}
_MADE = re.compile(r'label_(?:replace|join)\((?:[^"]|"[^"]*")*?,\s*"(\w+)"')


@dataclass(frozen=True)
class Query:
    """An expression and where it stands."""

    place: str
    expression: str

    def ready_to_run(self, interval: str = "1m") -> str:
        return self.expression.replace("$__rate_interval", interval)


@dataclass
class Names:
    """The metrics of an expression with the labels that each is matched by, and those it is grouped by."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped_by: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)


def rules() -> Iterator[dict[str, Any]]:
    for file in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def of_rules() -> list[Query]:
    return [Query(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


def of_dashboards() -> list[Query]:
    return [
        Query(f"{file.stem}: {panel['title']}", target["expr"])
        for file in sorted(DASHBOARDS.glob("*.json"))
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", ())
    ]


def names_in(query: Query) -> Names:
    found = Names(made=set(_MADE.findall(query.expression)))
    tokens = _TOKEN.findall(_STRING.sub('""', query.ready_to_run()))
    position = 0
    while position < len(tokens):
        position = _read(tokens, position, found)
    return found


def _read(tokens: list[str], position: int, found: Names) -> int:
    """Take what begins at `position` and return where the next begins."""
    token = tokens[position]
    following = tokens[position + 1] if position + 1 < len(tokens) else ""
    if token == "[":
        return tokens.index("]", position) + 1
    if not _NAME.fullmatch(token):
        return position + 1
    if token in _GROUPINGS and following == "(":
        end = tokens.index(")", position)
        found.grouped_by |= {name for name in tokens[position + 2 : end] if _NAME.fullmatch(name)}
        return end + 1
    if token in _WORDS or following == "(" or (following in _GROUPINGS and _is_aggregation(tokens, position)):
        return position + 1
    labels = found.metrics.setdefault(token, set())
    if following != "{":
        return position + 1
    end = tokens.index("}", position)
    inside = tokens[position + 2 : end]
    labels |= {name for name, operator in pairwise(inside) if _NAME.fullmatch(name) and operator[0] in "=!"}
    return end + 1


def _is_aggregation(tokens: list[str], position: int) -> bool:
    """Tell `sum by (x) (...)` from `metric and on (x) ...`: a metric is never followed by `by` or `without`."""
    return tokens[position + 1] in {"by", "without"}
