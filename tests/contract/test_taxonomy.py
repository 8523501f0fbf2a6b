"""Statuses, codes, roles: one taxonomy, and the schemas keep to it."""

import re
from typing import Any

import pytest
from clinic_shared.contracts import UnknownContractError, load

CONTRACTS = load()
STATUSES = {kind: moves for kind, moves in CONTRACTS.taxonomy("statuses").items() if kind != "version"}
CODES = {kind: codes for kind, codes in CONTRACTS.taxonomy("codes").items() if kind != "version"}
ROLES = CONTRACTS.taxonomy("roles")["roles"]
CLINICAL = {"chart.read", "encounters.write", "prescriptions.write", "results.read", "lab-messages.read"}
MONEY = {
    "invoices.read",
    "invoices.manage",
    "payments.read",
    "payments.make",
    "payments.manage",
    "payments.refund",
}
PEOPLE = {"patients.search", "patients.read", "patients.register", "patients.update"}
EXCERPTS = {"patients.read-masked", "patients.read-minimal"}

STATUS_OF_AGGREGATE = {
    "patient_id": "patient",
    "consent_id": "consent",
    "encounter_id": "encounter",
    "prescription_id": "prescription",
    "result_id": "lab-result",
    "service_id": "service",
    "appointment_id": "appointment",
    "referral_id": "referral",
    "message_id": "message",
    "lab_order_id": "lab-order",
    "obligation_id": "critical-result",
    "invoice_id": "invoice",
    "payment_id": "payment",
    "refund_id": "payment",
    "receipt_id": "receipt",
}
FHIR_STATUSES = {
    "appointment": {
        "proposed", "pending", "booked", "arrived", "fulfilled", "cancelled", "noshow", "entered-in-error",
        "checked-in", "waitlist",
    },
    "encounter": {
        "planned", "arrived", "triaged", "in-progress", "onleave", "finished", "cancelled", "entered-in-error",
        "unknown",
    },
    "prescription": {
        "active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown",
    },
    "consent": {"draft", "proposed", "active", "rejected", "inactive", "entered-in-error"},
    "referral": {
        "draft", "requested", "received", "accepted", "rejected", "ready", "cancelled", "in-progress", "on-hold",
        "failed", "completed", "entered-in-error",
    },
    "critical-result": {"requested", "completed"},
    "lab-order": {"draft", "active", "on-hold", "revoked", "completed", "entered-in-error", "unknown"},
    "lab-result": {
        "registered", "partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled",
        "entered-in-error", "unknown",
    },
    "message": {
        "preparation", "in-progress", "not-done", "on-hold", "stopped", "completed", "entered-in-error", "unknown",
    },
    "invoice": {"draft", "issued", "balanced", "cancelled", "entered-in-error"},
}  # fmt: skip


@pytest.mark.parametrize("name", ["statuses", "codes", "roles"])
def test_taxonomy_is_versioned(name):
    assert CONTRACTS.taxonomy(name)["version"] >= 1


def test_an_unknown_taxonomy_is_an_error():
    with pytest.raises(UnknownContractError):
        CONTRACTS.taxonomy("moods")


@pytest.mark.parametrize("event_type", CONTRACTS.events)
def test_statuses_in_events_are_those_of_the_taxonomy(event_type):
    data = CONTRACTS.schema(event_type)["properties"]["data"]
    status = data["properties"].get("status")
    aggregate = next(name for name in data["required"] if name.endswith("_id"))
    if aggregate not in STATUS_OF_AGGREGATE:
        return
    known = STATUSES[STATUS_OF_AGGREGATE[aggregate]]
    assert set(_values(status)) <= set(known)


@pytest.mark.parametrize("kind", STATUSES)
def test_moves_lead_to_statuses_of_the_same_kind(kind):
    for entry in STATUSES[kind].values():
        assert set(entry["next"]) <= set(STATUSES[kind])


@pytest.mark.parametrize("kind", STATUSES)
def test_every_status_can_be_reached(kind):
    reached = [next(iter(STATUSES[kind]))]
    for status in reached:
        reached += [after for after in STATUSES[kind][status]["next"] if after not in reached]
    starts = {"encounter": {"finished"}}.get(kind, set())
    assert set(reached) | starts == set(STATUSES[kind])


@pytest.mark.parametrize("kind", FHIR_STATUSES)
def test_every_status_maps_to_one_of_fhir_r4(kind):
    assert {entry["fhir"] for entry in STATUSES[kind].values()} <= FHIR_STATUSES[kind]


@pytest.mark.parametrize("kind", CODES)
def test_codes_fit_the_pattern_that_events_ask_for(kind):
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for code in CODES[kind])


def test_scopes_are_resource_and_action():
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*", scope) for scope in CONTRACTS.scopes())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_grants_only_scopes_that_exist_and_each_once(role):
    scopes = ROLES[role]["scopes"]
    assert set(scopes) <= CONTRACTS.scopes()
    assert len(set(scopes)) == len(scopes)
    assert ROLES[role]["principal"] in {"staff", "patient", "client"}


def test_every_scope_is_granted_to_somebody():
    granted = {scope for role in ROLES.values() for scope in role["scopes"]}
    assert granted == CONTRACTS.scopes()


@pytest.mark.parametrize(
    ("role", "forbidden"),
    [
        ("system-administrator", CLINICAL | PEOPLE | {"appointments.read", "messages.read", "audit.read"}),
        ("system-administrator", MONEY | {"patients.read-minimal"}),
        ("system-administrator", {"ops.reveal", "ops.correct"}),
        ("data-steward", CLINICAL | PEOPLE | MONEY | {"ops.redrive"}),
        ("registrar", CLINICAL | EXCERPTS | MONEY),
        ("doctor", MONEY | {"prices.read", "prices.manage", "invoices.create"}),
        ("management", CLINICAL | PEOPLE | EXCERPTS | MONEY | {"appointments.read"}),
        ("biller", CLINICAL | PEOPLE),
        ("privacy-officer", CLINICAL | PEOPLE | EXCERPTS | MONEY),
        ("patient", {"patients.search", "patients.register", "appointments.manage", "audit.read"}),
        ("lab", CONTRACTS.scopes() - {"lab-messages.send"}),
    ],
)
def test_a_role_never_grants_what_the_role_and_data_matrix_denies(role, forbidden):
    assert not set(ROLES[role]["scopes"]) & forbidden


def _values(schema: dict[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else schema["enum"]
