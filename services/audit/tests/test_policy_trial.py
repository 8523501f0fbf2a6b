"""Another policy is tried on what has happened, by the facts that each decision recorded."""

import json
from typing import Any

import pytest
import yaml
from clinic_audit.policy_trial import try_policy
from clinic_shared import contracts
from clinic_shared.policy import POLICY_FILE, Policy, current

RELATED = {"holds": "relationship network", "decision": "relationship"}
STRANGER = {"holds": "network", "decision": "out-of-reach"}


def proposed(permission: str, **reach: list[str]) -> Policy:
    """Return the current policy with other reaches of one permission."""
    document = yaml.safe_load((contracts.CONTRACTS_DIR / POLICY_FILE).read_text(encoding="utf-8"))
    [rules] = [rules for rules in document["data"].values() if permission in rules]
    rules[permission]["reach"] |= reach
    return Policy.of(document, contracts.scopes_by_role())


def record(role: str, permission: str, *, allowed: bool, number: int = 1, **details: str) -> bytes:
    made: dict[str, Any] = {
        "id": f"record-{number}",
        "outcome": "0" if allowed else "4",
        "agent": {"who": f"somebody-{number}", "kind": "staff", "roles": [role]},
        "patient": "a-patient",
        "details": {"permission": permission, **details},
    }
    return json.dumps(made).encode()


HAPPENED = [
    record("doctor", "chart.read", allowed=True, number=1, **RELATED),
    record("doctor", "chart.read", allowed=True, number=2, **RELATED),
    record("doctor", "chart.read", allowed=False, number=3, **STRANGER),
    record("registrar", "chart.read", allowed=False, number=4),
    json.dumps({"id": "x", "outcome": "0", "agent": {"who": "y", "kind": "staff"}, "details": {}}).encode(),
]


def changes(policy: Policy) -> list[tuple[str, tuple[str, ...], bool, int]]:
    trial = try_policy(policy, HAPPENED)
    return [(c.permission, c.roles, c.would_be_allowed, c.records) for c in trial.changes]


def test_the_policy_in_force_changes_nothing() -> None:
    trial = try_policy(current(), HAPPENED)
    assert (trial.judged, trial.without_decision, trial.changes) == (4, 1, [])


@pytest.mark.parametrize(
    ("reach", "expected"),
    [
        ({"doctor": ["own"]}, [("chart.read", ("doctor",), False, 2)]),
        ({"doctor": ["network"]}, [("chart.read", ("doctor",), True, 1)]),
        ({"registrar": ["department"]}, [("chart.read", ("registrar",), True, 1)]),
    ],
)
def test_what_would_come_out_differently_is_counted(
    reach: dict[str, list[str]], expected: list[tuple[str, tuple[str, ...], bool, int]]
) -> None:
    assert changes(proposed("chart.read", **reach)) == expected


def test_a_change_names_how_many_people_and_patients_and_some_records() -> None:
    [change] = try_policy(proposed("chart.read", doctor=["own"]), HAPPENED).changes
    assert (len(change.people), len(change.patients)) == (2, 1)
    assert change.examples == ["record-1", "record-2"]
