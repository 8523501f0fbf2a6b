"""Real messages of other projects: each gets the answer that the standard demands, however it is sent."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clinic_lab_integration.hl7 import (
    Disposition,
    Outcome,
    UnreadablePayloadError,
    read_report,
)

from .conftest import assess

WAYS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda raw: raw,
    "CR": lambda raw: raw.replace(b"\r\n", b"\r").replace(b"\n", b"\r"),
    "LF": lambda raw: raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n"),
    "CRLF": lambda raw: WAYS["LF"](raw).replace(b"\n", b"\r\n"),
    "with a mark": lambda raw: b"\xef\xbb\xbf" + raw.removeprefix(b"\xef\xbb\xbf"),
    "in an MLLP block": lambda raw: b"\x0b" + WAYS["CR"](raw) + b"\x1c\r",
}
TAKEN = {"ORU"}
NOT_TAKEN = {"ADT", "SIU", "ORM", "MDM", "OML", "OUL"}
WRONG = {
    "Lyme_WithBadDelimiters.txt": ("MSH-2", 102, Outcome.ERROR),
    "PHLIP_FLU_2.5.1_NO_MSH10.txt": ("MSH-10", 101, Outcome.ERROR),
    "PHLIP_FLU_2.5.1_NO_MSH9.txt": ("MSH-9", 101, Outcome.REJECT),
    "sample_bad_batch.hl7": ("MSH", 100, Outcome.ERROR),
    "sample_bad_file.hl7": ("MSH", 100, Outcome.ERROR),
}


def files(corpus: Path) -> Iterator[Path]:
    found = sorted(path for path in corpus.rglob("*") if path.suffix in {".hl7", ".txt"})
    assert len(found) >= 40
    yield from found


def read(path: Path, way: str) -> Any:
    return assess(WAYS[way](path.read_bytes()))


@pytest.mark.parametrize("way", WAYS)
def test_each_message_is_judged_by_its_type(corpus, at, way):
    judged = 0
    for path in files(corpus):
        for message in read(path, way).messages if path.name not in WRONG else ():
            code = message.header.message_code
            expected = Outcome.ACCEPT if code in TAKEN else Outcome.REJECT
            if code != "ACK":
                assert code in TAKEN | NOT_TAKEN, path.name
                assert message.outcome is expected, (path.name, message.findings)
            judged += 1
    assert judged >= 38


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_message_is_refused_where_it_is_wrong(corpus, way, name):
    (path,) = corpus.rglob(name)
    (message,) = read(path, way).messages
    location, code, outcome = WRONG[name]
    errors = [(one.location.path(), one.code.value) for one in message.findings if one.severity == "E"]
    assert (errors, message.outcome) == ([(location, code)], outcome)


@pytest.mark.parametrize("way", WAYS)
def test_each_answer_echoes_the_control_id_or_is_forbidden(corpus, at, way):
    for path in files(corpus):
        for message in read(path, way).messages:
            answer = message.answer(at=at)
            header = message.header
            if answer is None:
                assert (
                    message.disposition is Disposition.ACKNOWLEDGEMENT or header.accept_acknowledgment == "NE"
                ), path
                continue
            msa = answer.decode(message.charset.codec).split("\r")[1].split("|")
            modes = "C" if header.accept_acknowledgment or header.application_acknowledgment == "NE" else "A"
            if header.accept_acknowledgment == "NE":
                modes = "A"
            assert msa[1] == modes + {"accept": "A", "error": "E", "reject": "R"}[message.outcome], path
            assert (msa[2] if len(msa) > 2 else "") == header.control_id
            assert (b"\rERR|" in answer) is (message.disposition is Disposition.REFUSED)


def test_every_way_of_sending_says_the_same(corpus):
    for path in files(corpus):
        told = {way: [m.message and read_report(m.message) for m in read(path, way).messages] for way in WAYS}
        assert all(one == told["CR"] for one in told.values()), path.name


def test_every_observation_of_every_result_is_in_its_report(corpus):
    for path in files(corpus):
        for message in read(path, "as it is").messages:
            if message.message is None or message.header.message_code != "ORU":
                continue
            patients = read_report(message.message).patients
            orders = [order for patient in patients for order in patient.orders]
            observations = sum(len(p.observations) for p in patients)
            observations += sum(
                len(o.observations) + sum(len(s.observations) for s in o.specimens) for o in orders
            )
            assert observations == len(message.message.all("OBX")), path.name
            assert len([o for o in orders if o.service.codings]) == len(message.message.all("OBR")), path.name


def test_remarks_are_all_kept_where_they_belong(corpus):
    (path,) = corpus.rglob("exampleConcatNotes.txt")
    (patient,) = read_report(read(path, "as it is").messages[0].message).patients
    assert patient.notes == ("memo 1 for PID", "memo 2 for PID")
    assert patient.orders[0].notes == ("This is the first OBR note", "This is the secnd OBR Note.")


def test_a_payload_without_a_header_is_unreadable(corpus):
    (path,) = corpus.rglob("*.json")
    with pytest.raises(UnreadablePayloadError):
        assess(path.read_bytes())
