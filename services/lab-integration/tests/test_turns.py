"""One patient's messages take effect in order: behind one that fails only its patient waits."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from clinic_lab_integration import receiving
from clinic_lab_integration.app import processing
from clinic_lab_integration.messages import INTERFACES
from clinic_shared.ids import uuid7_at
from clinic_shared.intake import Item
from clinic_shared.intake_worker import IntakeWorker, waiting
from sqlalchemy import text
from structlog.testing import capture_logs

from .conftest import Laboratory

BREAK = """
CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'broken for a test'; END $$;
CREATE TRIGGER broken BEFORE INSERT ON lab_result_version FOR EACH ROW
WHEN (NEW.filler_order_number = 'BROKEN') EXECUTE FUNCTION break_it();
"""
MEND = "DROP TRIGGER broken ON lab_result_version"


def message(compose: Any, number: int, *, patient: str = "MRN-1", filler: str = "F-1") -> bytes:
    return compose(
        f"PID|1||{patient}^^^POLYCLINIC^MR",
        f"OBR|1||{filler}|GLU^Glucose^LN||||||||||||||||||2026011510{number:02}00+0300|||F",
        f"OBX|1|NM|GLU||{number}||||||F",
        msh={10: f"M-{number}"},
    )


async def execute(lab: Laboratory, statements: str) -> None:
    async with lab.lab.runtime.database.transaction() as tx:
        for statement in statements.split(";\nCREATE TRIGGER"):
            prefix = "CREATE TRIGGER" if statement.lstrip().startswith("broken") else ""
            await tx.execute(text(prefix + statement))


async def process(lab: Laboratory) -> None:
    with capture_logs():  # failures are part of it, and tracebacks take their time
        await lab.process()


async def post(lab: Laboratory, raw: bytes) -> str:
    answer = await lab.post(raw)
    assert answer.status_code == 200
    return answer.headers["location"].rpartition("/")[2]


async def dispositions(lab: Laboratory, *message_ids: str) -> list[str]:
    return [(await lab.units(message_id))[0][0] for message_id in message_ids]


async def test_behind_a_message_that_fails_only_its_patient_waits(lab: Laboratory, compose) -> None:
    await lab.add_patient("MRN-1")
    await lab.add_patient("MRN-2")
    await execute(lab, BREAK)
    first = await post(lab, message(compose, 1, filler="BROKEN"))
    second = await post(lab, message(compose, 2))
    other = await post(lab, message(compose, 3, patient="MRN-2"))
    await process(lab)
    assert [(e.data["message_id"]) for e in await lab.lab.events() if ".lab-result-" in e.type] == [other]
    await execute(lab, MEND)
    lab.lab.clock.advance(seconds=6)
    await process(lab)
    order = [e.data["message_id"] for e in await lab.lab.events() if ".lab-result-" in e.type]
    assert order == [other, first, second]


async def post_with_clocks_that_fall_back(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch, messages: Sequence[bytes]
) -> list[str]:
    """Post messages, each to a process whose clock is an hour behind that of the one before."""
    accepted = []
    for hours, raw in enumerate(messages):
        made_at = datetime.now(UTC) - timedelta(hours=hours)
        with monkeypatch.context() as wrong_clock:
            wrong_clock.setattr(receiving, "Item", partial(Item, id=uuid7_at(made_at)))
            accepted.append(await post(lab, raw))
    assert accepted == sorted(accepted, reverse=True)
    return accepted


async def filed_in_order(lab: Laboratory) -> list[str]:
    return [e.data["message_id"] for e in await lab.lab.events() if ".lab-result-" in e.type]


async def test_behind_a_message_that_fails_wait_those_accepted_later_whatever_the_clocks_said(
    lab: Laboratory, compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.add_patient("MRN-1")
    await execute(lab, BREAK)
    messages = [message(compose, 1, filler="BROKEN"), message(compose, 2), message(compose, 3)]
    accepted = await post_with_clocks_that_fall_back(lab, monkeypatch, messages)
    await process(lab)
    assert await filed_in_order(lab) == []
    await execute(lab, MEND)
    lab.lab.clock.advance(seconds=6)
    await process(lab)
    assert await filed_in_order(lab) == accepted


async def test_what_waited_for_its_patient_is_filed_as_it_came_whatever_the_clocks_said(
    lab: Laboratory, compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [message(compose, number) for number in (1, 2, 3)]
    accepted = await post_with_clocks_that_fall_back(lab, monkeypatch, messages)
    await process(lab)
    assert await dispositions(lab, *accepted) == ["parked"] * 3
    await lab.add_patient("MRN-1")
    assert await filed_in_order(lab) == accepted


async def test_those_who_waited_are_woken_as_soon_as_their_turn_comes(lab: Laboratory, compose) -> None:
    await lab.add_patient("MRN-1")
    await execute(lab, BREAK)
    first = await post(lab, message(compose, 1, filler="BROKEN"))
    await process(lab)
    followers = [await post(lab, message(compose, number)) for number in (2, 3)]
    # They come later in the schedule than what they wait for: without a call they would go on waiting.
    lab.lab.clock.advance(seconds=4)
    await process(lab)
    await execute(lab, MEND)
    lab.lab.clock.advance(seconds=2)
    await process(lab)
    order = [e.data["message_id"] for e in await lab.lab.events() if ".lab-result-" in e.type]
    assert order == [first, *followers]


async def test_what_is_given_up_lets_the_others_go_on(lab: Laboratory, compose) -> None:
    await lab.add_patient("MRN-1")
    await execute(lab, BREAK)
    await post(lab, message(compose, 1, filler="BROKEN"))
    second = await post(lab, message(compose, 2))
    for _ in range(8):
        await process(lab)
        lab.lab.clock.advance(hours=2)
    await process(lab)
    assert await dispositions(lab, second) == ["in-flight"]
    assert (await lab.dispositions())["parked"] == 1


@pytest.mark.parametrize("workers", [4])
async def test_parallel_workers_keep_the_order_of_each_patient(
    lab: Laboratory, compose, workers: int
) -> None:
    patients = [await lab.add_patient(f"MRN-{n}") for n in range(3)]
    sent: dict[str, list[str]] = {str(patient): [] for patient in patients}
    for number in range(12):
        n = number % 3
        raw = message(compose, number, patient=f"MRN-{n}", filler=f"F-{n}")
        sent[str(patients[n])].append(await post(lab, raw))
    process = processing(lab.lab.runtime)

    async def is_work_left() -> bool:
        async with lab.lab.runtime.database.transaction() as tx:
            return bool(await waiting(tx))

    async def work() -> None:
        worker = IntakeWorker(lab.lab.runtime, dict.fromkeys(INTERFACES, process))
        while await is_work_left():
            await worker.process_next()

    await asyncio.gather(*(work() for _ in range(workers)))
    took_effect: dict[str, list[str]] = {str(patient): [] for patient in patients}
    for event in await lab.lab.events():
        if ".lab-result-" in event.type:
            took_effect[event.data["patient_id"]].append(event.data["message_id"])
    assert took_effect == sent
