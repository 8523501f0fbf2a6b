"""Four statements of one policy, held to each other on generated cases: evaluator, oracle, Cedar, SQL."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import cedarpy
import psycopg
import pytest
from clinic_shared.care import care_relationship_table
from clinic_shared.policy import Record, current
from clinic_shared.policy_filters import Columns, visible
from clinic_shared.principal import Principal
from clinic_shared.testing import Servers
from psycopg import sql
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Uuid, create_engine, insert, select

from .generating import (
    CENTRES,
    DEPARTMENTS,
    NOW,
    PATIENTS,
    PERMISSIONS,
    STAFF,
    a_permission,
    a_principal,
    a_record,
)
from .matrix import MATRIX, allows

CASES = 100_000
SLICES = 5
"""Cedar takes its time (0.2 ms a case): each part may run in a process of its own."""
SEED = 20260302


def cases(count: int = CASES, *, seed: int = SEED) -> Iterator[tuple[Principal, str, Record]]:
    chance = random.Random(seed)
    for _ in range(count):
        principal = a_principal(chance)
        yield principal, a_permission(chance, principal), a_record(chance)


def test_the_evaluator_agrees_with_the_matrix_on_a_hundred_thousand_cases() -> None:
    policy, outcomes = current(), {True: 0, False: 0}
    for principal, permission, record in cases():
        decision = policy.decide(principal, permission, record, now=NOW)
        assert decision.allowed == allows(principal, permission, record, NOW), (principal, permission, record)
        outcomes[decision.allowed] += 1
    # Neither answer is so rare that agreeing would mean little.
    assert min(outcomes.values()) > CASES / 5


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLICES))
def test_the_evaluator_agrees_with_cedar_on_a_hundred_thousand_cases(part: int) -> None:
    folder = Path(__file__).parent
    policies = cedarpy.PolicySet.from_str((folder / "matrix.cedar").read_text(encoding="utf-8"))
    entities = cedarpy.Entities.from_json_str(json.dumps(_actions()))
    generated = list(cases(CASES // SLICES, seed=SEED + part))
    answers = cedarpy.is_authorized_batch([_request(*case) for case in generated], policies, entities)
    for (principal, permission, record), answer in zip(generated, answers, strict=True):
        assert not answer.diagnostics.errors, answer.diagnostics.errors
        decided = current().decide(principal, permission, record, now=NOW).allowed
        assert decided == answer.allowed, (principal, permission, record)


def _actions() -> list[dict[str, Any]]:
    """Group the actions as the Cedar policies name them."""
    groups = {
        "ofPatients": ("patient", "own"),
        "ofCare": ("doctor", "rel"),
        "ofAuthors": ("doctor", "own"),
        "ofDepartmentsForDoctors": ("doctor", "place"),
        "ofNobodyYet": ("doctor", "all"),
        "ofTheDesk": ("registrar", "place"),
        "ofMoney": ("biller", "place"),
    }
    made: list[dict[str, Any]] = [
        {"uid": {"type": "Action", "id": name}, "attrs": {}, "parents": []} for name in groups
    ]
    for permission in PERMISSIONS:
        parents = [
            {"type": "Action", "id": name}
            for name, (role, word) in groups.items()
            if word in MATRIX[permission][role]
        ]
        made.append({"uid": {"type": "Action", "id": permission}, "attrs": {}, "parents": parents})
    return made


def _request(principal: Principal, permission: str, record: Record) -> dict[str, Any]:
    holding = [r for r in record.relations if r.begins_at <= NOW and (r.ends_at is None or r.ends_at > NOW)]
    lasting = [r for r in record.relations if r.ends_at is None or r.ends_at > NOW]
    own_places = [x for p in record.places for x in (p.centre_id, p.department_id)]
    treated_at = [x for r in lasting for x in (r.centre_id, r.department_id)]
    is_patient = principal.kind == "patient"
    context = {
        "permission": permission,
        # Those that matter: a hundred thousand times all of them would be most of the test's time.
        "scopes": sorted(principal.scopes & {permission}),
        "roles": sorted(principal.roles),
        "isPatient": is_patient,
        "isApplication": principal.kind == "client" and not principal.roles,
        "subject": _SHORT[principal.subject],
        "me": _SHORT[principal.patient_id if is_patient and principal.patient_id else principal.subject],
        "patient": _SHORT[record.patient_id] if record.patient_id else "",
        "owners": _texts(record.owner_ids),
        "everywhere": principal.network,
        "worksAt": _texts(principal.centre_ids | principal.department_ids),
        "departments": _texts(principal.department_ids),
        "places": _texts(own_places + treated_at if record.follows_care else own_places),
        "ownPlaces": _texts(own_places),
        "carers": _texts(r.practitioner_id for r in holding),
        "caringDepartments": _texts(r.department_id for r in holding),
        "aggregate": record.aggregate,
    }
    return {
        "principal": 'User::"someone"',
        "action": f'Action::"{permission}"',
        "resource": 'Record::"one"',
        "context": context,
    }


_SHORT = {one: f"{one.int:x}" for one in (*PATIENTS, *STAFF, *CENTRES, *DEPARTMENTS)}


def _texts(ids: Any) -> list[str]:
    return sorted({_SHORT[one] for one in ids if one is not None})


# -- SQL

metadata = MetaData()
relations = care_relationship_table(metadata)
records = Table(
    "record",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("patient_id", Uuid),
    *(
        Column(name, Uuid)
        for name in ("owner_1", "owner_2", "centre_1", "department_1", "centre_2", "department_2")
    ),
)
COLUMNS = Columns(
    patient_id=records.c.patient_id,
    owner_ids=(records.c.owner_1, records.c.owner_2),
    places=((records.c.centre_1, records.c.department_1), (records.c.centre_2, records.c.department_2)),
    relations=relations,
)
RECORDS, QUESTIONS = 400, 300
assert RECORDS * QUESTIONS >= CASES


@pytest.fixture
def connection(servers: Servers, postgres_admin: psycopg.Connection[Any]) -> Iterator[Connection]:
    name = f"policy_{uuid4().hex}"
    postgres_admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    engine = create_engine(servers.database_url(name).replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as open_connection:
        metadata.create_all(open_connection)
        yield open_connection
    engine.dispose()
    postgres_admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _stored(connection: Connection) -> dict[int, Record]:
    """Store records; a patient's relationships are all of theirs, so records of one patient share them."""
    chance = random.Random(SEED)
    of_patient = {patient: list(a_record(chance).relations) for patient in PATIENTS}
    made: dict[int, Record] = {}
    for number in range(RECORDS):
        drawn = a_record(chance)
        made[number] = Record(
            patient_id=drawn.patient_id,
            owner_ids=drawn.owner_ids,
            places=drawn.places,
            relations=of_patient[drawn.patient_id] if drawn.patient_id else (),
        )
    connection.execute(insert(records), [_row(number, record) for number, record in made.items()])
    connection.execute(
        insert(relations),
        [
            {
                "kind": r.kind,
                "source_id": r.source_id,
                "version": 1,
                "patient_id": patient,
                "practitioner_id": r.practitioner_id,
                "centre_id": r.centre_id,
                "department_id": r.department_id,
                "begins_at": r.begins_at,
                "ends_at": r.ends_at,
            }
            for patient, theirs in of_patient.items()
            for r in theirs
        ],
    )
    return made


def _row(number: int, record: Record) -> dict[str, Any]:
    owners: list[UUID | None] = [*record.owner_ids, None, None]
    places = [(p.centre_id, p.department_id) for p in record.places] + [(None, None), (None, None)]
    return {
        "number": number,
        "patient_id": record.patient_id,
        "owner_1": owners[0],
        "owner_2": owners[1],
        "centre_1": places[0][0],
        "department_1": places[0][1],
        "centre_2": places[1][0],
        "department_2": places[1][1],
    }


@pytest.mark.servers
def test_a_list_shows_exactly_what_the_evaluator_allows_on_a_hundred_thousand_cases(
    connection: Connection,
) -> None:
    policy, made, chance = current(), _stored(connection), random.Random(SEED + 1)
    shown = 0
    for _ in range(QUESTIONS):
        principal = a_principal(chance)
        permission = a_permission(chance, principal)
        follows_care = chance.random() < 0.5
        columns = replace(COLUMNS, follows_care=follows_care)
        condition = visible(policy, principal, permission, columns, now=NOW)
        found = set(connection.execute(select(records.c.number).where(condition)).scalars())
        allowed = {
            number
            for number, record in made.items()
            if policy.decide(
                principal, permission, replace(record, follows_care=follows_care), now=NOW
            ).allowed
        }
        assert found == allowed, (principal, permission)
        shown += len(found)
    assert RECORDS * QUESTIONS / 10 < shown < RECORDS * QUESTIONS * 9 / 10
