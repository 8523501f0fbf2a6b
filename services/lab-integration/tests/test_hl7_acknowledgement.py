"""Which answer a message is owed, and its exact segments."""

import pytest
from clinic_lab_integration.hl7 import Disposition, Outcome


def test_the_answer_to_results_is_exact(compose, assess_one, at):
    assert assess_one(compose()).answer(at=at) == (
        b"MSH|^~\\&|POLYCLINIC|CENTRE|TESTLIS|TESTLAB|20260115090000+0000||ACK^R01^ACK|BDB2EA448F9FED3D6627|P|2.5.1\r"
        b"MSA|AA|MSG-1\r"
    )


def test_the_same_message_has_the_same_answer_and_another_message_another(compose, assess_one, at):
    first = assess_one(compose()).answer(at=at)
    assert assess_one(compose()).answer(at=at) == first
    other = assess_one(compose("PID|1||MRN-2^^^POLYCLINIC^MR", "OBR|1")).answer(at=at)
    assert other.split(b"|")[9] != first.split(b"|")[9]


@pytest.mark.parametrize(
    ("accept", "application", "taken", "refused"),
    [
        ("", "", "AA", "AR"),
        ("AL", "", "CA", "CR"),
        ("AL", "NE", "CA", "CR"),
        ("AL", "AL", "CA", "CR"),
        ("NE", "NE", None, None),
        ("NE", "", None, None),
        ("ER", "NE", None, "CR"),
        ("SU", "NE", "CA", None),
        ("NE", "AL", "AA", "AR"),
        ("NE", "ER", None, "AR"),
        ("NE", "SU", "AA", None),
        ("", "AL", "AA", "AR"),
        ("", "NE", "CA", "CR"),
        ("ER", "AL", "AA", "CR"),
        ("XX", "NE", "CA", "CR"),
    ],
)
def test_msh_15_and_msh_16_choose_the_answer(compose, assess_one, at, accept, application, taken, refused):
    def code(message_type: str) -> str | None:
        answer = assess_one(compose(msh={9: message_type, 15: accept, 16: application})).answer(at=at)
        return None if answer is None else answer.split(b"\r")[1].split(b"|")[1].decode()

    assert code("ORU^R01^ORU_R01") == taken
    assert code("ADT^A01^ADT_A01") == refused


def test_an_enhanced_answer_asks_for_none(compose, assess_one, at):
    fields = assess_one(compose(msh={15: "AL"})).answer(at=at).split(b"\r")[0].split(b"|")
    assert fields[14:16] == [b"NE", b"NE"]


@pytest.mark.parametrize("message_type", ["ACK", "ACK^R01^ACK", "MCF", "ORR^O02", "RSP^K11", ""])
def test_an_acknowledgement_is_never_answered(compose, assess_one, at, message_type):
    assessed = assess_one(compose("MSA|AA|OURS-1", msh={9: message_type}))
    assert assessed.disposition is Disposition.ACKNOWLEDGEMENT
    assert assessed.answer(at=at) is None
    assert assessed.temporary_refusal(at=at) is None


def test_our_own_answer_gets_no_answer(compose, assess_one, at):
    answer = assess_one(compose(msh={9: "ADT^A01"})).answer(at=at)
    assert assess_one(answer).disposition is Disposition.ACKNOWLEDGEMENT


def test_results_with_a_stray_msa_do_not_disappear(compose, assess_one, at):
    assessed = assess_one(compose("MSA|AA|X", "PID|1", "OBR|1"))
    assert assessed.disposition is Disposition.ACCEPTED
    assert b"MSA|AA|MSG-1" in assessed.answer(at=at)


@pytest.mark.parametrize(
    ("field", "text", "outcome", "location", "code"),
    [
        (9, "", Outcome.REJECT, "MSH-9", 101),
        (9, "ADT^A01^ADT_A01", Outcome.REJECT, "MSH-9.1", 200),
        (9, "ORU^R30^ORU_R30", Outcome.REJECT, "MSH-9.2", 201),
        (9, "ORU", Outcome.REJECT, "MSH-9.2", 201),
        (10, "", Outcome.ERROR, "MSH-10", 101),
        (10, "  ", Outcome.ERROR, "MSH-10", 101),
        (11, "", Outcome.REJECT, "MSH-11", 101),
        (11, "X", Outcome.REJECT, "MSH-11", 202),
        (12, "", Outcome.REJECT, "MSH-12", 101),
        (12, "3.0", Outcome.REJECT, "MSH-12", 203),
    ],
)
def test_what_the_header_must_say(compose, assess_one, field, text, outcome, location, code):
    assessed = assess_one(compose(msh={field: text}))
    assert assessed.disposition is Disposition.REFUSED
    assert assessed.outcome is outcome
    assert [(one.location.path(), one.code.value) for one in assessed.findings] == [(location, code)]


@pytest.mark.parametrize(
    "version",
    ["2.1", "2.2", "2.3", "2.3.1", "2.3.z", "2.4", "2.5", "2.6", "2.7.1", "2.8", "2.9", "2.5.1^RUS"],
)
def test_all_versions_of_hl7_2_are_taken(compose, assess_one, version):
    assert assess_one(compose(msh={12: version})).outcome is Outcome.ACCEPT


def test_versions_without_trigger_events_may_leave_it_out(compose, assess_one):
    assert assess_one(compose(msh={9: "ORU", 12: "2.2"})).outcome is Outcome.ACCEPT
    assert assess_one(compose(msh={9: "ORU^^ORU_R01"})).outcome is Outcome.ACCEPT


@pytest.mark.parametrize("processing_id", ["P", "T", "D", "T^A"])
def test_production_training_and_debugging_are_processing_ids(compose, assess_one, processing_id):
    assert assess_one(compose(msh={11: processing_id})).outcome is Outcome.ACCEPT


def test_results_without_an_order_segment_are_an_error(compose, assess_one, at):
    assessed = assess_one(compose("PID|1||MRN-1^^^POLYCLINIC"))
    assert assessed.outcome is Outcome.ERROR
    assert b"ERR||OBR^1|100^Segment sequence error^HL70357|E||||There is no OBR segment" in assessed.answer(
        at=at
    )


def test_an_order_without_its_obr_is_taken_and_noticed(compose, assess_one):
    assessed = assess_one(compose("PID|1", "ORC|RE|A", "ORC|RE|B", "OBR|1|B"))
    assert assessed.outcome is Outcome.ACCEPT
    assert [one.location.path() for one in assessed.findings] == ["ORC"]


def test_errors_stand_in_fields_from_version_2_5_on(compose, assess_one, at):
    answer = assess_one(compose(msh={9: "ADT^A01^ADT_A01", 10: ""})).answer(at=at).split(b"\r")
    assert answer[1] == b"MSA|AR||This message type is not received here; results (ORU R01) are"
    assert answer[2] == (
        b"ERR||MSH^1^9^1^1|200^Unsupported message type^HL70357|E||||"
        b"This message type is not received here; results (ORU R01) are"
    )
    assert (
        answer[3]
        == b"ERR||MSH^1^10|101^Required field missing^HL70357|E||||MSH-10 (message control id) is empty"
    )


def test_errors_are_repetitions_of_err_1_before_version_2_5(compose, assess_one, at):
    answer = assess_one(compose(msh={9: "ADT^A01", 10: "", 12: "2.3"})).answer(at=at).split(b"\r")
    assert answer[0].split(b"|")[8] == b"ACK^A01"
    assert (
        answer[2]
        == b"ERR|MSH^1^9^200&Unsupported message type&HL70357~MSH^1^10^101&Required field missing&HL70357"
    )
    assert answer[3:] == [b""]


def test_msa_3_is_gone_from_version_2_7_on(compose, assess_one, at):
    assert b"\rMSA|AR|MSG-1\r" in assess_one(compose(msh={9: "ADT^A01", 12: "2.7"})).answer(at=at)


def test_processing_id_and_version_are_echoed(compose, assess_one, at):
    fields = assess_one(compose(msh={11: "T", 12: "2.4"})).answer(at=at).split(b"\r")[0].split(b"|")
    assert fields[10:12] == [b"T", b"2.4"]


def test_an_unknown_version_is_answered_in_ours(compose, assess_one, at):
    fields = assess_one(compose(msh={12: "7"})).answer(at=at).split(b"\r")[0].split(b"|")
    assert fields[11] == b"2.5.1"


def test_a_hostile_control_id_stays_one_field(compose, assess_one, at):
    answer = assess_one(compose(msh={10: "A\\F\\B\\X0D\\MSA"})).answer(at=at)
    assert len(answer.split(b"\r")) == 3
    assert answer.split(b"\r")[1] == b"MSA|AA|A\\F\\B MSA"


def test_a_temporary_refusal_asks_to_send_again(compose, assess_one, at):
    assessed = assess_one(compose())
    answer = assessed.temporary_refusal(at=at)
    assert b"\rMSA|AE|MSG-1|The message could not be stored; send it again\r" in answer
    assert b"207^Application internal error^HL70357|E" in answer
    assert answer.split(b"|")[9] != assessed.answer(at=at).split(b"|")[9]
    assert b"\rMSA|CE|MSG-1" in assess_one(compose(msh={15: "AL"})).temporary_refusal(at=at)


def test_warnings_are_not_sent(compose, assess_one, at):
    assessed = assess_one(compose("OBR|1", "OBX|1|ST|a||x\x01y"))
    assert assessed.findings
    assert b"ERR" not in assessed.answer(at=at)
