"""Character sets: declared, marked, detected."""

import pytest
from clinic_lab_integration.hl7 import CharsetSource
from clinic_lab_integration.hl7.charset import detect

PEOPLE = "PID|1||MRN-1^^^POLYCLINIC^MR||Тестова^Анна^Тестовна"
REMARK = "OBX|1|TX|a||Признаков воспаления нет, контроль через месяц"


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        ("UNICODE UTF-8", "utf-8"),
        ("UTF-8", "utf-8"),
        ("8859/5", "iso8859_5"),
        ("UNICODE UTF-8~8859/5", "utf-8"),
        ("WINDOWS-1251", "cp1251"),
    ],
)
def test_a_declared_character_set_is_used_and_answered_in(compose, assess_one, at, declared, codec):
    assessed = assess_one(compose(PEOPLE, "OBR|1", msh={3: "Лаборатория", 18: declared}, codec=codec))
    assert assessed.message.get("PID-5.1") == "Тестова"
    assert (assessed.charset.codec, assessed.charset.source) == (codec, CharsetSource.DECLARED)
    assert assessed.findings == ()
    answer = assessed.answer(at=at).decode(codec)
    assert answer.split("|")[4] == "Лаборатория"
    assert answer.split("\r")[0].split("|")[17] == declared


def test_german_in_8859_1_is_read(compose, assess_one):
    assessed = assess_one(compose("PID|1||||Müller^Größe", "OBR|1", msh={18: "8859/1"}, codec="latin-1"))
    assert assessed.message.get("PID-5") == "Müller^Größe"


@pytest.mark.parametrize("declared", ["", "ASCII", "ENIGMA", "UNICODE UTF-8"])
@pytest.mark.parametrize("codec", ["cp1251", "iso8859_5", "cp866"])
def test_undeclared_or_wrongly_declared_cyrillic_is_detected(compose, assess_one, at, codec, declared):
    assessed = assess_one(compose(PEOPLE, "OBR|1", REMARK, msh={18: declared}, codec=codec))
    assert assessed.message.get("PID-5.1") == "Тестова"
    assert assessed.message.get("OBX-5").startswith("Признаков")
    assert (assessed.charset.codec, assessed.charset.source) == (codec, CharsetSource.DETECTED)
    assert [finding.location.path() for finding in assessed.findings] == (["MSH-18"] if declared else [])
    assert b"MSA|AA|MSG-1" in assessed.answer(at=at)


@pytest.mark.parametrize(
    "text",
    [
        "ТЕСТОВА АННА ТЕСТОВНА",
        "мг/л",
        "Тестова",
        "ммоль/л",
        "Гемоглобин 112 г/л",
        "С-реактивный белок",
        "ЁЛКИНА ЩУЧЬЯ",
    ],
)
def test_russian_is_read_as_windows_1251(text):
    assert detect(b"OBX|1|ST|a||" + text.encode("cp1251") + b"|x") == "cp1251"


@pytest.mark.parametrize(
    "text", ["Müller Größe", "umol/l µmol/l 37 °C", "don’t – stop", "Gonçalves São João", "10³/µL"]
)
def test_western_text_is_not_taken_for_russian(text):
    assert detect(b"OBX|1|ST|a||" + text.encode("cp1252") + b"|x") == "cp1252"


def test_undeclared_utf_8_is_detected(compose, assess_one):
    assessed = assess_one(compose(PEOPLE, "OBR|1"))
    assert assessed.message.get("PID-5.2") == "Анна"
    assert (assessed.charset.codec, assessed.charset.source) == ("utf-8", CharsetSource.DETECTED)


def test_a_byte_order_mark_says_utf_8_whatever_is_declared(compose, assess_one):
    assessed = assess_one(b"\xef\xbb\xbf" + compose(PEOPLE, "OBR|1", msh={18: "8859/5"}))
    assert assessed.message.get("PID-5.1") == "Тестова"
    assert assessed.charset.source is CharsetSource.BYTE_ORDER_MARK


def test_a_byte_order_mark_that_lies_is_dropped(compose, assess_one):
    assessed = assess_one(b"\xef\xbb\xbf" + compose(PEOPLE, "OBR|1", REMARK, codec="cp1251"))
    assert assessed.message.get("MSH-3") == "TESTLIS"
    assert assessed.message.get("PID-5.1") == "Тестова"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_read_and_answered(compose, assess_one, at, codec):
    assessed = assess_one(compose(PEOPLE, "OBR|1", msh={18: "UNICODE UTF-16"}, codec=codec))
    assert assessed.message.get("PID-5.1") == "Тестова"
    assert assessed.answer(at=at).decode("utf-16").startswith("MSH|^~\\&|POLYCLINIC")


def test_pure_ascii_needs_no_declaration(compose, assess_one):
    assessed = assess_one(compose())
    assert (assessed.charset.codec, assessed.charset.source) == ("ascii", CharsetSource.DEFAULT)
    assert assessed.findings == ()


def test_hexadecimal_escapes_follow_the_character_set(compose, assess_one):
    cyrillic = "\\X" + "Тест".encode("cp1251").hex() + "\\"
    message = assess_one(compose("OBR|1", f"OBX|1|ST|a||{cyrillic}", msh={18: "WINDOWS-1251"})).message
    assert message.get("OBX-5") == "Тест"
