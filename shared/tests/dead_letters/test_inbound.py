"""What outside senders gave us: counted by partner and day, looked at, processed again, corrected, let be."""

import base64
import json
from typing import Any
from uuid import UUID

import pytest
from clinic_shared.audit import Action, AuditEntry
from clinic_shared.context import Context
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError
from clinic_shared.inbound.accounts import Interface
from clinic_shared.inbound.registry import receives
from clinic_shared.intake import Intake, Item
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.testing import eventually
from sqlalchemy import String, cast, column, literal, null, select, table, text

from .conftest import CANARY, Office, Person

pytestmark = pytest.mark.servers

MESSAGES = "/v1/ops/messages"
BAD = f"MSH|bad {CANARY}".encode()
effect = table("effect", column("event_id"))


class Lab:
    """An interface of the service: what it took in, and how it processes it."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.is_mended = False
        fates = select(
            effect.c.event_id.label("item_id"),
            literal("applied").label("disposition"),
            cast(null(), String).label("reason"),
        )
        receives(office.runtime, "hl7", Interface(fates), self._process)
        self.worker = IntakeWorker(office.runtime, {"hl7": self._process})

    async def _process(self, tx: Transaction, item: Item) -> None:
        if b"bad" in item.body and not self.is_mended:
            raise InvalidRequestError("never")
        await tx.execute(text("INSERT INTO effect (event_id) VALUES (:id)"), {"id": item.id})

    async def takes(self, *bodies: bytes, sender: str = "TESTLAB") -> list[UUID]:
        taken = []
        for body in bodies:
            item = Item(
                interface="hl7",
                sender=sender,
                content_type="application/hl7-v2",
                body=body,
                received_at=self.office.clock.now(),
                answer=b"MSA|AA",
                answer_type="application/hl7-v2",
                attributes={"control_id": body.decode()[4:], "before": "Zg=="},
            )
            audit = AuditEntry(action=Action.CREATE, resource_type="LabMessage", resource_id=item.id)
            taken.append(
                (await Intake.of(self.office.runtime).accept(item, audit=audit, context=Context())).id
            )
        return taken

    async def works(self) -> None:
        while await self.worker.process_waiting():
            pass

    async def states(self) -> list[str]:
        return [
            row.state
            for row in await self.office.query(
                "SELECT coalesce(set_aside, state) AS state FROM intake ORDER BY id"
            )
        ]


@pytest.fixture
def lab(office: Office, monkeypatch: pytest.MonkeyPatch) -> Lab:
    # There is no broker to turn to when the machine is slow.
    for module in ("intake", "intake_store"):
        monkeypatch.setattr(f"clinic_shared.{module}.DATABASE_SECONDS", 30.0)
    return Lab(office)


async def get(person: Person, path: str = "", **query: Any) -> Any:
    answer = await person.http.get(MESSAGES + path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def post(person: Person, path: str, body: Any = None, *, expected: int = 200) -> Any:
    answer = await person.http.post(MESSAGES + path, json=body or {})
    assert answer.status_code == expected, answer.text
    return answer.json()


async def days(person: Person) -> list[dict[str, Any]]:
    answer = await person.http.get("/v1/ops/ledger")
    return list(answer.raise_for_status().json()["days"])


async def test_a_parked_message_is_found_by_its_cause_tried_and_processed_again(
    lab: Lab, admin: Person
) -> None:
    ids = await lab.takes(b"MSH|good", BAD, BAD + b" 2")
    await lab.works()
    listed = await get(admin)
    assert [item["id"] for item in listed["items"]] == [str(one) for one in reversed(ids)]
    [group] = listed["groups"]
    assert group["count"] == 2
    assert group["last_id"] == str(ids[2])
    tried = await post(admin, "/dry-run", {"cause": group["cause"]})
    assert [one["would"] for one in tried["items"]] == ["failed", "failed"]
    lab.is_mended = True
    tried = await post(admin, "/dry-run", {"cause": group["cause"]})
    assert [(one["would"], one["fates"]) for one in tried["items"]] == [("processed", {"applied": 1})] * 2
    assert await lab.states() == ["processed", "parked", "parked"]
    chosen = {"cause": group["cause"], "expected_count": 2, "up_to_id": group["last_id"]}
    assert await post(admin, "/reprocess", chosen) == {"count": 2}
    await lab.works()
    assert await lab.states() == ["processed"] * 3
    steps = {step["step"] for step in (await get(admin, f"/{ids[1]}"))["history"]}
    assert steps >= {"received", "durable in the database", "parked", "reprocess", "processed"}


async def test_when_its_answer_left_is_noted(lab: Lab, admin: Person) -> None:
    [message] = await lab.takes(b"MSH|good")

    async def noted() -> bool:
        return "answered" in [step["step"] for step in (await get(admin, f"/{message}"))["history"]]

    await eventually(noted)


async def test_a_decision_is_about_what_was_seen(lab: Lab, admin: Person) -> None:
    await lab.takes(BAD)
    await lab.works()
    [group] = (await get(admin))["groups"]
    await lab.takes(BAD + b" later")
    await lab.works()
    seen = {"cause": group["cause"], "expected_count": 1}
    refused = await post(admin, "/reprocess", seen, expected=409)
    assert refused["type"].endswith("selection-changed")
    assert await post(admin, "/reprocess", seen | {"up_to_id": group["last_id"]}) == {"count": 1}


async def test_content_is_masked_until_somebody_gives_a_reason(
    lab: Lab, office: Office, admin: Person, steward: Person
) -> None:
    [message] = await lab.takes(BAD)
    await lab.works()
    shown = await get(admin, f"/{message}")
    assert "before" not in shown["envelope"]
    del shown["envelope"]
    assert CANARY not in json.dumps([shown, (await get(admin))["groups"]], ensure_ascii=False)
    await post(admin, f"/{message}/reveal", {"reason": "let me see"}, expected=403)
    revealed = await post(steward, f"/{message}/reveal", {"reason": "the laboratory asked"})
    assert base64.b64decode(revealed["body"]) == BAD
    [record] = await office.audited("reveal")
    assert record["reason"] == "the laboratory asked"


async def test_letting_a_message_be_takes_two_people(lab: Lab, office: Office, admin: Person) -> None:
    [message] = await lab.takes(BAD)
    await lab.works()
    wish = {"ids": [str(message)], "reason": "sent by mistake"}
    asked = await post(admin, "/discard", wish)
    assert await lab.states() == ["parked"]
    path = f"/decisions/{asked['decision_id']}/approve"
    approver = await office.person(scopes=["ops.approve", "ops.read"])
    alone = await office.person(scopes=["ops.approve", "ops.redrive"])
    own = (await post(alone, "/discard", wish))["decision_id"]
    refused = await post(alone, f"/decisions/{own}/approve", expected=409)
    assert refused["type"].endswith("self-approval")
    assert await post(approver, path) == {"count": 1}
    assert await lab.states() == ["discarded"]
    [line] = await days(admin)
    assert line["discarded"] == line["answered"] == 1
    assert line["balanced"]
    await post(approver, path, expected=409)


async def test_a_corrected_copy_stands_for_its_original(lab: Lab, admin: Person, steward: Person) -> None:
    [message] = await lab.takes(BAD)
    await lab.works()
    body = base64.b64encode(b"MSH|mended").decode()
    made = await post(steward, f"/{message}/correct", {"body": body, "reason": "typo"}, expected=201)
    await lab.works()
    assert await lab.states() == ["superseded", "processed"]
    assert (await get(admin, f"/{message}"))["superseded_by"] == made["copy_id"]
    assert (await get(admin, f"/{made['copy_id']}"))["corrects"] == str(message)
    [line] = await days(admin)
    assert (line["answered"], line["applied"], line["balanced"]) == (1, 1, True)


async def test_the_equation_holds_by_partner_and_day_and_its_breach_shows(
    lab: Lab, office: Office, admin: Person
) -> None:
    await lab.takes(b"MSH|1", b"MSH|2", BAD)
    await lab.takes(b"MSH|1", b"MSH|1", sender="OTHERLAB")
    await lab.works()
    await lab.takes(b"MSH|3")
    office.clock.advance(days=1)
    await lab.takes(b"MSH|4")
    lines = await days(admin)
    assert all(line["balanced"] for line in lines)
    counted = [
        tuple(line[name] for name in ("partner", "answered", "applied", "parked", "duplicate", "in_flight"))
        for line in lines
    ]
    assert counted == [
        ("OTHERLAB", 2, 1, 0, 1, 0),
        ("TESTLAB", 4, 2, 1, 0, 1),
        ("TESTLAB", 1, 0, 0, 0, 1),
    ]
    async with office.runtime.database.transaction() as tx:
        await tx.execute(text("DELETE FROM effect WHERE id = (SELECT min(id) FROM effect)"))
    unbalanced = [line for line in await days(admin) if not line["balanced"]]
    assert [(line["partner"], line["answered"], line["applied"]) for line in unbalanced] == [
        ("TESTLAB", 4, 1)
    ]
