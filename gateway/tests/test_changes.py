"""Who hears of what, and what the ring remembers."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from clinic_gateway.changes import NOBODY, Change, Ring, Rules
from clinic_shared import contracts
from clinic_shared.principal import Principal

CONTRACTS = contracts.load()
RULES = Rules(CONTRACTS.taxonomy("stream"))
CENTRE, DEPARTMENT, OTHER = uuid4(), uuid4(), uuid4()
PATIENT = uuid4()
SCOPE = "appointments.read"


def change(**changes: object) -> Change:
    one = Change(
        event_id=uuid4(),
        type="scheduling.appointment-booked.v1",
        subject=uuid4(),
        version=1,
        scope=SCOPE,
        centre_ids=frozenset({CENTRE}),
        department_ids=frozenset({DEPARTMENT}),
        patient_id=PATIENT,
        heard_at=0.0,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def staff(*, scopes: frozenset[str] = frozenset({SCOPE}), **places: object) -> Principal:
    return Principal(subject=uuid4(), kind="staff", scopes=scopes, **places)  # type: ignore[arg-type]


@pytest.mark.parametrize("event_type", sorted(CONTRACTS.events))
def test_every_event_type_has_a_scope_that_exists_or_is_for_nobody(event_type: str) -> None:
    rule = next(
        r for r in CONTRACTS.taxonomy("stream")["changes"] if RULES.scope_of(event_type) == r["scope"]
    )
    assert rule["scope"] in CONTRACTS.scopes() | {NOBODY}


def test_an_event_type_without_a_rule_is_for_nobody() -> None:
    assert RULES.scope_of("unheard.of.v1") == NOBODY


@pytest.mark.parametrize(
    ("principal", "hears"),
    [
        (staff(network=True), True),
        (staff(centre_ids=frozenset({CENTRE})), True),
        (staff(department_ids=frozenset({DEPARTMENT})), True),
        (staff(centre_ids=frozenset({OTHER}), department_ids=frozenset({OTHER})), False),
        (staff(), False),
        (staff(network=True, scopes=frozenset({"results.read"})), False),
        (Principal(subject=PATIENT, kind="patient", scopes=frozenset({SCOPE}), patient_id=PATIENT), True),
        (Principal(subject=OTHER, kind="patient", scopes=frozenset({SCOPE}), patient_id=OTHER), False),
        (
            Principal(
                subject=OTHER,
                kind="patient",
                scopes=frozenset({SCOPE}),
                patient_id=OTHER,
                patient_records=frozenset({OTHER, PATIENT}),
            ),
            True,
        ),
    ],
)
def test_a_caller_hears_of_their_own_places_and_patient(principal: Principal, hears: bool) -> None:
    assert change().concerns(principal) is hears


def test_what_belongs_to_no_place_and_no_patient_is_for_all_who_may_read_it() -> None:
    everywhere = change(centre_ids=frozenset(), department_ids=frozenset(), patient_id=None)
    assert everywhere.concerns(staff())
    of_a_patient = replace(everywhere, patient_id=PATIENT)
    assert not of_a_patient.concerns(staff(centre_ids=frozenset({CENTRE})))
    patient = Principal(subject=OTHER, kind="patient", scopes=frozenset({SCOPE}), patient_id=OTHER)
    assert not everywhere.concerns(patient)


def test_a_referral_concerns_both_ends() -> None:
    for event in ("referrals.referral-created.v1", "scheduling.service-defined.v1"):
        for body in CONTRACTS.examples(event):
            from clinic_gateway.changes import _DEPARTMENTS, _ids

            named = {UUID(str(value)) for key, value in body["data"].items() if key in _DEPARTMENTS}
            assert named <= _ids(body["data"], _DEPARTMENTS, "department_ids")


def ids(changes: list[Change] | None) -> list[UUID]:
    assert changes is not None
    return [one.event_id for one in changes]


def test_the_ring_gives_back_what_came_after() -> None:
    ring, told = Ring(10), [change(heard_at=10.0 * n) for n in range(5)]
    for one in told:
        ring.add(one)
    assert ids(ring.since(told[2].event_id)) == ids(told[3:])
    assert ring.since(told[4].event_id) == []
    assert ring.newest == told[4].event_id


def test_a_little_from_before_is_given_again_since_replicas_hear_in_other_orders() -> None:
    ring, told = Ring(10), [change(heard_at=at) for at in (0.0, 96.0, 99.0, 100.0, 101.0)]
    for one in told:
        ring.add(one)
    assert ids(ring.since(told[3].event_id)) == [told[1].event_id, told[2].event_id, told[4].event_id]


def test_the_ring_forgets_the_oldest_and_says_so() -> None:
    ring, told = Ring(3), [change(heard_at=10.0 * n) for n in range(5)]
    for one in told:
        ring.add(one)
    assert ring.since(told[1].event_id) is None
    assert ids(ring.since(told[2].event_id)) == ids(told[3:])
    ring.clear()
    assert ring.newest is None
    assert ring.since(told[4].event_id) is None
    ring.add(told[0])
    assert ring.since(told[0].event_id) == []
