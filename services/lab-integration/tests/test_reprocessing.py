"""Messages taken up again: corrections only of what is understood otherwise, nothing twice, everything counted."""

from typing import Any

import httpx
import pytest
from clinic_lab_integration.tables import lab_result_version, lab_unit
from clinic_shared.intake import intake_table
from sqlalchemy import update

from .conftest import Compose, Laboratory

ADMIN = "system-administrator"
OPS = "/v1/ops/messages"


def glucose(compose: Compose, **changes: Any) -> bytes:
    value, control_id = changes.pop("value", "5.1"), changes.pop("control_id", "M-1")
    return compose(
        "PID|1||MRN-1^^^POLYCLINIC^MR",
        "OBR|1||F-1^LIS|GLU^Glucose^L||||||||||||||||||20260115102500+0300|||F",
        f"OBX|1|NM|GLU^Glucose^L||{value}|mmol/L|||||F",
        msh={10: control_id},
    )


async def map_glucose(lab: Laboratory) -> None:
    change = {"kind": "test", "source_code": "GLU", "source_system": "L", "code": "2345-7"}
    answer = await lab.lab.http.post(
        f"/v1/lab/partners/{lab.partner_id}/code-map",
        json={"changes": [change]},
        headers=lab.headers(ADMIN),
    )
    assert answer.status_code in (200, 201), answer.text


async def post(lab: Laboratory, path: str, *message_ids: str) -> httpx.Response:
    return await lab.lab.http.post(
        f"{OPS}/{path}", json={"ids": list(message_ids)}, headers=lab.headers(ADMIN)
    )


async def reprocess(lab: Laboratory, *message_ids: str) -> None:
    answer = await post(lab, "reprocess", *message_ids)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"count": len(message_ids)}
    assert (await lab.dispositions())["in_flight"] == len(message_ids), "it is under way once more"
    await lab.process()


async def applied(lab: Laboratory, message: bytes) -> str:
    message_id = await lab.send(message)
    await lab.chart_files()
    assert await lab.units(message_id) == [("applied", None)]
    return message_id


async def meanings(lab: Laboratory) -> list[Any]:
    rows = sorted(await lab.rows(lab_result_version), key=lambda row: row["version"])
    return [(row["version"], row["status"], row["meanings"][0]["code"]) for row in rows]


async def test_what_means_the_same_is_left_alone(lab: Laboratory, compose: Compose) -> None:
    await lab.add_patient()
    message_id = await applied(lab, glucose(compose))
    await reprocess(lab, message_id)
    assert await meanings(lab) == [(1, "final", None)]
    assert await lab.units(message_id) == [("applied", None)]
    assert await lab.dispositions() == {"answered": 1, "applied": 1}


async def test_with_a_new_map_the_chart_gets_a_correction_once(lab: Laboratory, compose: Compose) -> None:
    await lab.add_patient()
    message_id = await applied(lab, glucose(compose))
    await map_glucose(lab)
    await reprocess(lab, message_id)
    assert await meanings(lab) == [(1, "final", None), (2, "corrected", "2345-7")]
    assert await lab.result_events() == [("received", 1, "final"), ("corrected", 2, "corrected")]
    assert await lab.units(message_id) == [("in-flight", None)]
    await lab.chart_files()
    assert await lab.dispositions() == {"answered": 1, "applied": 1}
    await reprocess(lab, message_id)
    assert len(await meanings(lab)) == 2


async def test_a_dry_run_tells_what_would_change_and_changes_nothing(
    lab: Laboratory, compose: Compose
) -> None:
    await lab.add_patient()
    message_id = await applied(lab, glucose(compose))
    same = await post(lab, "dry-run", message_id)
    assert same.json()["items"][0]["events"] == {}
    await map_glucose(lab)
    [tried] = (await post(lab, "dry-run", message_id)).json()["items"]
    assert (tried["would"], tried["fates"]) == ("processed", {"in-flight": 1})
    assert tried["events"]["lab-integration.lab-result-corrected.v1"] == 1
    assert await meanings(lab) == [(1, "final", None)]
    assert await lab.dispositions() == {"answered": 1, "applied": 1}


async def test_what_newer_messages_rest_on_is_not_touched(lab: Laboratory, compose: Compose) -> None:
    await lab.add_patient()
    first = await applied(lab, glucose(compose))
    await applied(lab, glucose(compose, value="6.2", control_id="M-2"))
    await map_glucose(lab)
    await reprocess(lab, first)
    assert [version for version, _, _ in await meanings(lab)] == [1, 2]


async def test_what_was_refused_and_would_be_taken_now_is_filed(lab: Laboratory, compose: Compose) -> None:
    """The release that took it in refused it: told by the note that was made then."""
    await lab.add_patient()
    posted = await lab.post(glucose(compose))
    message_id = posted.headers["location"].rpartition("/")[2]
    async with lab.lab.runtime.database.transaction() as tx:
        refused = intake_table.c.attributes.concat({"outcome": "error", "answer_code": "AE"})
        await tx.execute(update(intake_table).values(attributes=refused))
    await lab.process()
    assert await lab.units(message_id) == [("rejected", "answered-ae")]
    await reprocess(lab, message_id)
    await lab.chart_files()
    assert await lab.units(message_id) == [("applied", None)]
    assert await lab.dispositions() == {"answered": 1, "applied": 1}


async def test_what_would_be_refused_again_stays_refused(lab: Laboratory, compose: Compose) -> None:
    posted = await lab.post(compose(msh={9: "ADT^A01"}))
    await lab.process()
    message_id = posted.headers["location"].rpartition("/")[2]
    await reprocess(lab, message_id)
    assert await lab.units(message_id) == [("rejected", "answered-ar")]
    assert await lab.dispositions() == {"answered": 1, "rejected": 1}


async def test_what_a_person_has_decided_stays(lab: Laboratory, compose: Compose) -> None:
    message_id = await lab.send(glucose(compose))
    answer = await lab.lab.http.post(
        f"/v1/lab/unmatched/{message_id}.0/discard",
        json={"reason": "sent by mistake"},
        headers=lab.headers("doctor"),
    )
    assert answer.status_code == 200, answer.text
    await lab.add_patient()
    await reprocess(lab, message_id)
    assert [row["disposition"] for row in await lab.rows(lab_unit)] == ["discarded"]


@pytest.mark.parametrize("path", ["reprocess"])
async def test_an_id_that_nobody_knows_is_told_so(lab: Laboratory, path: str) -> None:
    answer = await post(lab, path, "01900000-0000-7000-8000-000000000001")
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/selection-changed")
