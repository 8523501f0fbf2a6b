"""What a laboratory writes about a person stands in results and nowhere else."""

import pytest
from clinic_shared import metrics
from clinic_shared.events import audit_outbox, event_log
from sqlalchemy import select

from .conftest import Laboratory

CANARIES = ("CANARYNAME", "CANARYVALUE", "CANARYNOTE", "CANARYNUMBER")


async def test_no_word_of_a_patient_gets_into_logs_metrics_audit_or_open_parts_of_events(
    lab: Laboratory, compose, capfd: pytest.CaptureFixture[str]
) -> None:
    person = "PID|1||{}^^^POLYCLINIC^MR||CANARYNAME^CANARYNAME||19900101|F"
    result = ["OBR|1||F-1|GLU^Glucose^L", "OBX|1|ST|GLU||CANARYVALUE||||||F", "NTE|1||CANARYNOTE"]
    await lab.add_patient("CANARYNUMBER-1")
    await lab.send(compose(person.format("CANARYNUMBER-1"), *result))
    await lab.send(compose(person.format("CANARYNUMBER-2"), *result, msh={10: "M-2"}))
    await lab.send(compose(person.format("CANARYNUMBER-1"), *result, "NTE|2||CANARYNOTE"))
    refused = await lab.post(compose(person.format("CANARYNUMBER-3"), *result, msh={9: "ADT^A01", 10: "M-3"}))
    unreadable = await lab.post(b"CANARYNAME|CANARYVALUE")
    await lab.process()
    waiting = (await lab.get("/v1/lab/unmatched", "registrar"))["items"]
    assert waiting[0]["family_name"] == "CANARYNAME"  # the work-list is where a person has to see it

    logged = capfd.readouterr()
    exposed = metrics.exposition()[0].decode()
    async with lab.lab.runtime.database.transaction() as tx:
        audited = [row.record.decode() for row in await tx.fetch_all(select(audit_outbox.c.record))]
        opened = [f"{row.type} {row.data}" for row in await tx.fetch_all(select(event_log))]
    told = [logged.out, logged.err, exposed, refused.text, unreadable.text, *audited, *opened]
    assert [(canary, text) for canary in CANARIES for text in told if canary in text] == []
    assert len(opened) >= 1
    assert len(audited) > 3
