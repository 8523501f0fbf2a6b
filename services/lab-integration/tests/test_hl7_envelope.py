"""Several messages in one payload: concatenated, in a batch, in a file, in MLLP blocks."""

import pytest
from clinic_lab_integration.hl7 import (
    Disposition,
    Outcome,
    PayloadTooLargeError,
    UnreadablePayloadError,
)

from .conftest import assess

BHS = b"BHS|^~\\&|TESTLIS|TESTLAB|POLYCLINIC|CENTRE|20260115||||BATCH-1\r"
FHS = b"FHS|^~\\&|TESTLIS|TESTLAB|POLYCLINIC|CENTRE|20260115||||FILE-1\r"


def segments(answer: bytes) -> list[str]:
    return [line[:3].decode() for line in answer.split(b"\r") if line]


def test_two_messages_are_answered_one_after_the_other(compose, at):
    assessment = assess(compose(msh={10: "ONE"}) + compose(msh={10: "TWO"}))
    assert [message.header.control_id for message in assessment.messages] == ["ONE", "TWO"]
    answer = assessment.answer(at=at)
    assert segments(answer) == ["MSH", "MSA", "MSH", "MSA"]
    assert answer.index(b"MSA|AA|ONE") < answer.index(b"MSA|AA|TWO")


def test_one_bad_message_does_not_take_the_other_with_it(compose, at):
    assessment = assess(compose(msh={10: "ONE", 9: "ADT^A01"}) + compose(msh={10: "TWO"}))
    assert [message.outcome for message in assessment.messages] == [Outcome.REJECT, Outcome.ACCEPT]
    assert segments(assessment.answer(at=at)) == ["MSH", "MSA", "ERR", "MSH", "MSA"]


def test_mllp_blocks_separate_messages(compose):
    raw = b"\x0b" + compose(msh={10: "ONE"}) + b"\x1c\r\x0b" + compose(msh={10: "TWO"}) + b"\x1c\r"
    assessment = assess(raw)
    assert [message.raw for message in assessment.messages] == [
        compose(msh={10: "ONE"}).rstrip(),
        compose(msh={10: "TWO"}).rstrip(),
    ]


def test_each_message_has_its_own_character_set(compose):
    person = "PID|1||||Тестова"
    one = compose(person, "OBR|1", msh={18: "UNICODE UTF-8"})
    two = compose(person, "OBR|1", msh={18: "8859/5"}, codec="iso8859_5")
    assert [message.message.get("PID-5") for message in assess(one + two).messages] == ["Тестова", "Тестова"]


def test_a_batch_is_answered_by_a_batch_that_refers_to_it(compose, at):
    assessment = assess(BHS + compose(msh={10: "ONE"}) + compose(msh={10: "TWO"}) + b"BTS|2\r")
    assert assessment.findings == ()
    answer = assessment.answer(at=at)
    assert segments(answer) == ["BHS", "MSH", "MSA", "MSH", "MSA", "BTS"]
    assert answer.startswith(b"BHS|^~\\&|POLYCLINIC|CENTRE|TESTLIS|TESTLAB|20260115090000+0000|||")
    assert answer.split(b"\r")[0].split(b"|")[11] == b"BATCH-1"
    assert answer.endswith(b"BTS|2\r")


def test_a_file_of_batches_is_answered_by_one(compose, at):
    raw = (
        FHS
        + BHS
        + compose()
        + b"BTS|1\r"
        + BHS.replace(b"H-1", b"H-2")
        + compose(msh={10: "TWO"})
        + b"BTS|1\rFTS|2\r"
    )
    answer = assess(raw).answer(at=at)
    assert segments(answer) == ["FHS", "BHS", "MSH", "MSA", "BTS", "BHS", "MSH", "MSA", "BTS", "FTS"]
    assert answer.split(b"\r")[0].split(b"|")[11] == b"FILE-1"
    assert answer.endswith(b"FTS|2\r")


def test_an_empty_batch_is_legal_and_answered_by_an_empty_one(at):
    assessment = assess(BHS + b"BTS|0\r")
    assert assessment.messages == ()
    assert assessment.findings == ()
    assert segments(assessment.answer(at=at)) == ["BHS", "BTS"]


def test_a_batch_of_unanswered_messages_gets_no_answer(compose, at):
    quiet = compose(msh={15: "NE", 16: "NE"})
    assert assess(BHS + quiet + b"BTS|1\r").answer(at=at) is None


def test_a_batch_without_a_message_is_refused_to_its_sender(at):
    assessment = assess(BHS + b"EVN|A04\rPID|1||MRN-1\rBTS|1\r")
    (stray,) = assessment.messages
    assert (stray.disposition, stray.outcome, stray.message) == (Disposition.REFUSED, Outcome.ERROR, None)
    answer = assessment.answer(at=at)
    assert segments(answer) == ["BHS", "MSH", "MSA", "ERR", "BTS"]
    assert b"MSA|AE||" in answer
    assert b"100^Segment sequence error" in answer


def test_segments_before_the_first_message_are_refused_and_the_message_is_taken(compose, at):
    assessment = assess(b"OBX|9|NM|lost||1\r" + compose())
    assert [message.disposition for message in assessment.messages] == [
        Disposition.REFUSED,
        Disposition.ACCEPTED,
    ]
    answer = assessment.answer(at=at)
    assert answer.index(b"MSA|AE|") < answer.index(b"MSA|AA|MSG-1")


def test_segments_after_a_batch_are_refused(compose):
    assessment = assess(BHS + compose() + b"BTS|1\rOBX|9|NM|lost||1\r")
    assert [message.disposition for message in assessment.messages] == [
        Disposition.ACCEPTED,
        Disposition.REFUSED,
    ]


@pytest.mark.parametrize("trailer", [b"", b"BTS|3\r"])
def test_a_batch_that_was_cut_off_is_taken_and_noticed(compose, at, trailer):
    assessment = assess(BHS + compose() + trailer)
    assert [message.disposition for message in assessment.messages] == [Disposition.ACCEPTED]
    (finding,) = assessment.findings
    assert finding.outcome is Outcome.ACCEPT
    assert finding.text.encode() in assessment.answer(at=at).split(b"\r")[-2]


def test_answers_made_earlier_are_wrapped_as_they_are(compose, at):
    assessment = assess(BHS + compose() + compose(msh={10: "TWO"}) + b"BTS|2\r")
    assert b"\rstored\rBTS|1\r" in assessment.wrap([None, b"stored\r"], at=at)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"MSH",
        b"MSHA^~\\&|",
        b"msh|^~\\&|",
        b'{"resourceType": "Bundle"}',
        b"PID|1||X\r",
        b"BTS|1\r",
        b"\x00\xff",
    ],
)
def test_without_a_header_nobody_can_be_answered(raw):
    with pytest.raises(UnreadablePayloadError):
        assess(raw)


def test_a_payload_over_the_limit_is_not_looked_at(compose):
    with pytest.raises(PayloadTooLargeError):
        assess(compose() + b" " * (1 << 20))
    with pytest.raises(PayloadTooLargeError):
        assess(compose(), max_bytes=10)


def test_a_payload_of_very_many_messages_is_not_looked_at(compose):
    assert len(assess(compose() * 999).messages) == 999
    with pytest.raises(PayloadTooLargeError):
        assess(compose() * 1000)
