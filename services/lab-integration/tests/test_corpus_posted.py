"""Every real message of other projects, posted: the answer that the standard demands, no 500, accounted for."""

from collections import Counter
from pathlib import Path

from clinic_lab_integration.hl7 import (
    Disposition,
    Outcome,
    UnreadablePayloadError,
    assess,
    read_report,
)
from clinic_lab_integration.reports import group_count

from .conftest import Laboratory


def payloads(corpus: Path) -> dict[str, bytes]:
    found = {
        str(path.relative_to(corpus)): path.read_bytes()
        for path in sorted(corpus.rglob("*"))
        if path.is_file()
    }
    assert len(found) >= 40
    return found


async def test_every_file_gets_its_answer_and_is_accounted_for(lab: Laboratory, corpus: Path, at) -> None:
    expected: Counter[str] = Counter()
    for name, payload in payloads(corpus).items():
        answer = await lab.post(payload)
        try:
            assessment = assess(payload)
        except UnreadablePayloadError:
            assert answer.status_code == 422, name
            continue
        assert answer.status_code == 200, (name, answer.text)
        expected["answered"] += sum(
            group_count(m.message) if m.message and m.disposition is Disposition.ACCEPTED else 1
            for m in assessment.messages
        )
        codes = [line.split("|")[1] for line in answer.text.split("\r") if line.startswith("MSA")]
        wanted = [m for m in assessment.messages if m.answer(at=at) is not None]
        suffix = {Outcome.ACCEPT: "A", Outcome.ERROR: "E", Outcome.REJECT: "R"}
        assert [code[1] for code in codes] == [suffix[m.outcome] for m in wanted], name
    assert await lab.process() > 40
    counted = await lab.dispositions()
    assert counted["answered"] == expected["answered"]
    # Nobody of these is a patient here, so all that was taken waits for a person.
    assert set(counted) <= {"answered", "parked", "rejected", "duplicate"}
    assert counted["parked"] > 0


async def test_every_file_sent_again_is_a_duplicate(lab: Laboratory, corpus: Path) -> None:
    first, second = [
        {name: (await lab.post(payload)).content for name, payload in payloads(corpus).items()}
        for _ in range(2)
    ]
    assert {name for name in first if first[name] != second[name] and not name.endswith(".json")} == set()
    await lab.process()
    before = await lab.dispositions()
    assert before["duplicate"] * 2 >= before["answered"]


def test_groups_are_counted_without_reading_the_message_as_with_reading_it(corpus: Path) -> None:
    counted = 0
    for payload in payloads(corpus).values():
        try:
            messages = assess(payload).messages
        except UnreadablePayloadError:
            continue
        for message in messages:
            if message.message is not None and message.disposition is Disposition.ACCEPTED:
                assert group_count(message.message) == len(read_report(message.message).patients)
                counted += 1
    assert counted > 10
