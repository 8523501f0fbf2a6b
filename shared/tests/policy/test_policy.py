"""The policy as a document, and what a decision tells of itself."""

from datetime import timedelta
from uuid import UUID

import pytest
from clinic_shared import contracts
from clinic_shared.care import permit
from clinic_shared.errors import ConcealedError
from clinic_shared.policy import Policy, Reach, Record, Relation, current
from clinic_shared.principal import SYSTEM, Principal
from pydantic import ValidationError

from .generating import DEPARTMENTS, NOW, PATIENTS, STAFF, scopes_of


def doctor(*, department_ids: frozenset[UUID] = frozenset()) -> Principal:
    return Principal(
        subject=STAFF[0],
        kind="staff",
        roles=frozenset({"doctor"}),
        scopes=scopes_of(("doctor",)),
        department_ids=department_ids,
    )


def relation(kind: str = "appointment", *, number: int = 1, **of: UUID) -> Relation:
    day = timedelta(days=1)
    return Relation(kind=kind, source_id=UUID(int=number), begins_at=NOW - day, ends_at=NOW + day, **of)


def test_a_decision_explains_itself_with_ids_and_codes() -> None:
    record = Record(patient_id=PATIENTS[0], relations=[relation(practitioner_id=STAFF[0])])
    decision = current().decide(doctor(), "chart.read", record, now=NOW)
    assert decision.allowed
    assert decision.explained() == {
        "permission": "chart.read",
        "decision": "relationship",
        "holds": "relationship network",
        "policy": str(current().version),
        "relationship": "appointment",
        "relationship_source": str(UUID(int=1)),
    }


def test_a_broken_glass_explains_only_what_nothing_else_does() -> None:
    broken = relation("break-glass", practitioner_id=STAFF[0])
    shared = relation("referral", number=2, department_id=DEPARTMENTS[0])
    caller = doctor(department_ids=frozenset({DEPARTMENTS[0]}))
    both = Record(patient_id=PATIENTS[0], relations=[broken, shared])
    explained = current().decide(caller, "chart.read", both, now=NOW)
    assert explained.relation == shared
    assert current().decide(doctor(), "chart.read", both, now=NOW).relation == broken


def test_a_relationship_is_half_open() -> None:
    mine = Relation(
        kind="appointment",
        source_id=UUID(int=1),
        practitioner_id=STAFF[0],
        begins_at=NOW,
        ends_at=NOW + timedelta(hours=1),
    )
    record = Record(patient_id=PATIENTS[0], relations=[mine])
    moments = {seconds: NOW + timedelta(seconds=seconds) for seconds in (-1, 0, 3599, 3600)}
    allowed = {
        seconds: current().decide(doctor(), "chart.read", record, now=now).allowed
        for seconds, now in moments.items()
    }
    assert allowed == {-1: False, 0: True, 3599: True, 3600: False}


def test_what_is_refused_looks_like_nothing_and_is_explained_to_the_audit() -> None:
    with pytest.raises(ConcealedError) as refusal:
        permit(doctor(), "chart.read", Record(patient_id=PATIENTS[0]), now=NOW)
    assert refusal.value.extensions == {}
    assert refusal.value.patient_id == PATIENTS[0]
    assert refusal.value.explanation["decision"] == "out-of-reach"


def test_the_platform_itself_is_refused_nothing() -> None:
    assert current().decide(SYSTEM, "chart.read", Record(), now=NOW).allowed


def test_a_permission_that_is_not_about_people_is_a_matter_of_roles() -> None:
    assert current().decide(doctor(), "catalogue.read", Record(), now=NOW).reason == "role"
    assert not current().decide(doctor(), "catalogue.manage", Record(), now=NOW).allowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 0},
        {"data": {"clinical": {"chart.read": {"action": "read", "reach": {"doctor": ["everything"]}}}}},
        {"data": {"clinical": {"chart.read": {"action": "look", "reach": {}}}}},
        {"somebody": "else"},
    ],
)
def test_what_is_no_policy_is_refused(wrong: dict[str, object]) -> None:
    document = {"version": 1, "applications": [], "data": {}, **wrong}
    with pytest.raises(ValidationError):
        Policy.of(document, contracts.scopes_by_role())


def test_the_nearest_reach_is_named_first() -> None:
    assert current().reach_of(doctor(), "referrals.read") == (
        Reach.OWN,
        Reach.RELATIONSHIP,
        Reach.DEPARTMENT,
    )
