"""Times, numbers, codes and identifiers: what is written is kept."""

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from clinic_lab_integration.hl7.datatypes import (
    Code,
    Coding,
    EncapsulatedData,
    EntityIdentifier,
    Numeric,
    Precision,
    ReferencePointer,
    StructuredNumeric,
    Text,
    Timestamp,
    read_entity_identifier,
    read_number,
    read_timestamp,
    read_value,
)
from clinic_lab_integration.hl7.model import EncodingRules, Repetition

MOSCOW = ZoneInfo("Europe/Moscow")


def repetition(raw: str) -> Repetition:
    return Repetition(raw, EncodingRules())


@pytest.mark.parametrize(
    ("text", "precision", "on", "at"),
    [
        ("2026", Precision.YEAR, None, None),
        ("202601", Precision.MONTH, None, None),
        ("20260115", Precision.DAY, date(2026, 1, 15), None),
        ("20260115+0300", Precision.DAY, date(2026, 1, 15), None),
        ("2026011500", Precision.HOUR, date(2026, 1, 15), datetime(2026, 1, 14, 21, tzinfo=UTC)),
        ("202601151030", Precision.MINUTE, date(2026, 1, 15), datetime(2026, 1, 15, 7, 30, tzinfo=UTC)),
        ("202601151030-0500", Precision.MINUTE, date(2026, 1, 15), datetime(2026, 1, 15, 15, 30, tzinfo=UTC)),
        (
            "20260115103045+0545",
            Precision.SECOND,
            date(2026, 1, 15),
            datetime(2026, 1, 15, 4, 45, 45, tzinfo=UTC),
        ),
        (
            "20260115103045.1234+0300",
            Precision.FRACTION,
            date(2026, 1, 15),
            datetime(2026, 1, 15, 7, 30, 45, 123400, tzinfo=UTC),
        ),
    ],
)
def test_times_keep_their_precision_and_become_utc(text, precision, on, at):
    assert read_timestamp(text, MOSCOW) == Timestamp(text, precision, on, at)


def test_without_an_offset_or_a_zone_there_is_no_instant():
    assert read_timestamp("202601151030") == Timestamp(
        "202601151030", Precision.MINUTE, date(2026, 1, 15), None
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "20260231",
        "00000101",
        "2026011525",
        "2026-01-15",
        "202601151",
        "0001010100+1400",
        "٢٠٢٦",
    ],
)
def test_what_is_no_time_stays_text(text):
    assert read_timestamp(text, MOSCOW) == Timestamp(text)


def test_an_impossible_offset_names_no_instant():
    assert read_timestamp("202601151030+9900").at is None


@pytest.mark.parametrize(
    ("text", "exponent"), [("4.10", -2), ("4.1", -1), ("+0.010", -3), ("-5", 0), (".5", -1), ("7.", 0)]
)
def test_numbers_keep_their_digits(text, exponent):
    value = read_number(text)
    assert value.text == text
    assert value.number == Decimal(text)
    assert value.number.as_tuple().exponent == exponent


@pytest.mark.parametrize(
    "text", ["<0.01", ">1:80", "1,5", "", "NaN", "Infinity", "1e5", "٥", "not detected", "9" * 99]
)
def test_what_is_no_number_stays_text(text):
    assert read_number(text) == Numeric(text, None)


@pytest.mark.parametrize(
    ("raw", "text"), [("^182", "182"), (">^100", ">100"), ("^1^:^80", "1:80"), ("^2^-^5", "2-5"), ("", "")]
)
def test_structured_numbers_read_as_people_write_them(raw, text):
    value = read_value("SN", repetition(raw), None)
    assert isinstance(value, StructuredNumeric)
    assert value.text == text


def test_codes_keep_both_systems_and_the_words_of_the_sender():
    value = read_value("CWE", repetition("260415000^Not detected^SCT^ND^Нет^L^1^2^не обнаружено"), None)
    assert value == Code(
        (Coding("260415000", "Not detected", "SCT"), Coding("ND", "Нет", "L")), "не обнаружено"
    )
    assert value.text == "не обнаружено"


def test_a_code_without_a_first_coding_is_not_lost():
    value = read_value("CE", repetition("^^^VR01746^Culture^L"), None)
    assert isinstance(value, Code)
    assert (value.first.code, value.text) == ("VR01746", "Culture")


def test_text_where_a_code_was_announced_is_shown():
    assert read_value("CWE", repetition("Not detected"), None).text == "Not detected"


@pytest.mark.parametrize("value_type", ["ST", "TX", "FT", "FN", "", "ZZ"])
def test_text_and_unknown_types_keep_every_character(value_type):
    assert read_value(value_type, repetition("A^B & C\\.br\\D"), None) == Text("A^B & C\nD")


def test_documents_inside_and_outside_of_the_message_are_told_apart():
    inside = read_value("ED", repetition("LIS^application^pdf^Base64^JVBERi0="), None)
    assert inside == EncapsulatedData("application", "pdf", "Base64", "JVBERi0=")
    outside = read_value("RP", repetition("https://lab.example.org/1^LIS^application^pdf"), None)
    assert outside == ReferencePointer("https://lab.example.org/1", "application", "pdf")


@pytest.mark.parametrize("value_type", ["DT", "TS", "DTM"])
def test_times_as_results_take_the_zone_of_the_laboratory(value_type):
    value = read_value(value_type, repetition("202601151030"), MOSCOW)
    assert isinstance(value, Timestamp)
    assert value.at == datetime(2026, 1, 15, 7, 30, tzinfo=UTC)


def test_order_numbers_are_opaque_and_keep_who_gave_them():
    assert read_entity_identifier(repetition("00123-7/А^LIS^1.2.3^ISO")) == EntityIdentifier(
        "00123-7/А", "LIS", "1.2.3", "ISO"
    )
    assert read_entity_identifier(repetition("^LIS")) is None
    assert EntityIdentifier("1", "", "1.2.3", "ISO").authority == "1.2.3"
