"""Separators, escapes, paths and line ends."""

import pytest
from clinic_lab_integration.hl7 import Disposition, Outcome
from clinic_lab_integration.hl7.model import EncodingRules, escape, unescape

from .conftest import assess

RULES = EncodingRules()


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\n\r", "\r\n\r\n"])
def test_every_line_end_ends_a_segment(compose, assess_one, end):
    message = assess_one(compose(end=end)).message
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "OBR", "OBX"]
    assert message.get("OBX-5") == "5.10"


def test_mixed_line_ends_are_read(compose, assess_one):
    raw = compose().replace(b"\rPID", b"\n\rPID").replace(b"\rOBX", b"\r\nOBX")
    assert [segment.name for segment in assess_one(raw).message.segments] == ["MSH", "PID", "OBR", "OBX"]


def test_a_line_that_starts_no_segment_continues_the_text_before_it(compose, assess_one):
    assessed = assess_one(compose("OBR|1", "OBX|1|TX|a||first\nsecond line|g/L"))
    assert assessed.message.get("OBX-5") == "first\nsecond line"
    assert assessed.message.get("OBX-6") == "g/L"
    assert assessed.disposition is Disposition.ACCEPTED
    assert [finding.code.value for finding in assessed.findings] == [100]


@pytest.mark.parametrize(
    "around", [b"\xef\xbb\xbf%s", b"  \r\n%s", b"%s\r\r\n \x00\x1a", b"\x0b%s\x1c\r", b"\t%s"]
)
def test_marks_blanks_and_frames_around_a_message_change_nothing(compose, assess_one, around):
    plain, wrapped = assess_one(compose()), assess_one(around.replace(b"%s", compose()))
    assert wrapped.message.get("OBX-5") == "5.10"
    assert wrapped.digest == plain.digest
    assert wrapped.raw == plain.raw


def test_indented_segments_are_segments(compose, assess_one):
    message = assess_one(compose().replace(b"\rPID", b"\r  PID")).message
    assert message.get("PID-3.1") == "MRN-1"


def test_other_separators_are_read_and_answered_with(compose, assess_one, at):
    segments = ("PID#1##MRN-1*%*POLYCLINIC", "OBR#1", "OBX#1#ST#a##left!S!right$whole")
    assessed = assess_one(compose(*segments, msh={1: "#", 2: "*$!%"}))
    assert assessed.message.get("PID-3.1") == "MRN-1"
    assert assessed.message.get("OBX-5[1]") == "left*right"
    assert assessed.message.get("OBX-5[2]") == "whole"
    # MSH-9 was written with the usual separators, which mean nothing here.
    assert b"MSH#*$!%#POLYCLINIC#CENTRE#TESTLIS#TESTLAB#" in assessed.answer(at=at)


def test_the_truncation_character_of_version_2_7_is_accepted(compose, assess_one, at):
    assessed = assess_one(compose(msh={2: "^~\\&#", 12: "2.7"}))
    assert assessed.disposition is Disposition.ACCEPTED
    assert assessed.answer(at=at).startswith(b"MSH|^~\\&#|")


def test_a_doubled_escape_character_is_read_as_one(compose, assess_one, at):
    assessed = assess_one(compose("OBR|1", "OBX|1|ST|a||x\\T\\y", msh={2: "^~\\\\&"}))
    assert assessed.message.get("OBX-5") == "x&y"
    assert assessed.outcome is Outcome.ACCEPT
    assert assessed.answer(at=at).startswith(b"MSH|^~\\&|")


@pytest.mark.parametrize("marks", ["^~", "^~\\"])
def test_omitted_separators_separate_nothing(compose, assess_one, marks):
    message = assess_one(compose("OBR|1", "OBX|1|CE|a&b^c||x&y", msh={2: marks})).message
    assert message.get("OBX-3.1") == "a&b"
    assert message.get("OBX-3.1.2") == ""


@pytest.mark.parametrize("marks", ["&&&&", "^^\\&", "^", "", "AB\\&", "^~ &", "^~\\&#!", "|^~\\"])
def test_bad_separators_are_an_error_at_msh_2(compose, assess_one, at, marks):
    assessed = assess_one(compose(msh={2: marks}))
    assert assessed.outcome is not Outcome.ACCEPT
    assert ("MSH-2", 102) in {(one.location.path(), one.code.value) for one in assessed.findings}
    assert b"ERR||MSH^1^2|102^Data type error^HL70357|E" in assessed.answer(at=at)


@pytest.mark.parametrize("separator", ["^", "~", "\\", "&"])
def test_a_field_separator_that_is_a_recommended_mark_still_gets_an_answer(separator, assess_one, at):
    raw = separator.join(["MSH", "^~\\&", "A", "B", "C", "D", "", "", "ORU", "1", "P", "2.5"]).encode()
    assert assess_one(raw).answer(at=at).startswith(b"MSH" + separator.encode())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\\F\\\\S\\\\T\\\\R\\\\E\\", "|^&~\\"),
        ("one\\.br\\two", "one\ntwo"),
        ("one\\.sp+2\\two\\.sp\\", "one\n\ntwo\n"),
        ("\\.in+4\\text\\.fi\\", "text"),
        ("\\H\\bold\\N\\ plain", "bold plain"),
        ("\\X0D\\\\X0A\\", "\n\n"),
        ("a\\X0D0A\\b", "a\nb"),
        ("\\XD09F\\", "П"),
        ("\\XCFF0E8\\", "При"),
        ("\\X00\\", "\N{REPLACEMENT CHARACTER}"),
        ("C:\\temp\\T\\", "C:\\temp&"),
        ("\\Zlocal\\", "\\Zlocal\\"),
        ("\\X0\\", "\\X0\\"),
        ("5 \\ 10", "5 \\ 10"),
        ("\\E\\F\\E\\", "\\F\\"),
    ],
)
def test_escape_sequences_are_resolved(written, read):
    assert unescape(written, RULES) == read


@pytest.mark.parametrize("text", ["a|b^c&d~e\\f", "\\F\\", "plain", "Ё"])
def test_escaped_text_is_read_back(text):
    assert unescape(escape(text, RULES), RULES) == text
    assert not set("|^&~") & set(escape(text, RULES))


def test_a_line_end_can_not_leave_a_field():
    assert escape("MSH\rPID\n", RULES) == "MSH PID "


def test_an_escaped_separator_does_not_separate(compose, assess_one):
    message = assess_one(compose("OBR|1", "OBX|1|ST|a||x\\S\\y\\R\\z")).message
    assert message.get("OBX-5") == "x^y~z"
    assert message.get("OBX-5.1") == "x^y~z"


def test_paths_reach_segments_repetitions_components_and_subcomponents(compose, assess_one):
    message = assess_one(compose("PID|1||A^^^X&1.2&ISO~B^^^Y", "OBR|1", "OBX|1", "OBX|2|NM")).message
    assert message.get("MSH-1") == "|"
    assert message.get("MSH-2") == "^~\\&"
    assert message.get("PID-3[2].1") == "B"
    assert message.get("PID-3.4") == "X&1.2&ISO"
    assert message.get("PID-3.4.2") == "1.2"
    assert message.get("OBX[2]-2") == "NM"
    assert message.get("OBX[3]-2") == ""
    assert message.get("PID-3[3]") == ""
    assert message.get("ZZZ-99") == ""


def test_a_path_that_is_none_is_a_mistake(compose, assess_one):
    with pytest.raises(ValueError, match=r"PID\.3"):
        assess_one(compose()).message.get("PID.3")


def test_a_null_is_empty(compose, assess_one):
    message = assess_one(compose('PID|1||""|""^""', "OBR|1")).message
    assert message.get("PID-3") == ""
    assert message.get("PID-4.2") == ""


def test_control_characters_are_replaced_and_never_join_what_they_separated(compose, assess_one):
    assessed = assess_one(compose("PID|1||12\x0034^^^POLYCLINIC", "OBR|1"))
    assert assessed.message.get("PID-3.1") == "12\N{REPLACEMENT CHARACTER}34"
    assert assessed.disposition is Disposition.ACCEPTED
    assert assessed.findings


def test_too_many_segments_are_refused(compose, assess_one):
    segments = ["OBR|1", *["OBX|1|NM|a||1"] * 2000]
    assert assess_one(compose(*segments)).outcome is Outcome.ERROR
    assert assess_one(compose(*segments[:1999])).outcome is Outcome.ACCEPT


def test_findings_never_repeat_the_message():
    raw = b"MSH|^~\\&|Canaryova|Canaryova|||Canaryova||Canaryova^Canaryova||Canaryova|Canaryova\rPID|1||Canaryova\x00"
    findings = assess(raw).messages[0].findings
    assert len(findings) >= 4
    assert not any("Canaryova" in repr(finding) for finding in findings)
