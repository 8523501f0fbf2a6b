"""ORU^R01: what belongs to which patient, order and observation."""

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from clinic_lab_integration.hl7 import ResultStatus, read_report

from .conftest import assess


def test_patients_orders_and_observations_are_kept_apart(report):
    first, second = report(
        "PID|1||A^^^POLYCLINIC^MR",
        "ORC|RE|O1^POLYCLINIC|F1^LIS",
        "OBR|1|O1^POLYCLINIC|F1^LIS|CBC",
        "OBX|1|NM|WBC||6.20",
        "OBX|2|NM|RBC||4.10",
        "OBR|2|O2^POLYCLINIC|F2^LIS|CRP",
        "OBX|1|NM|CRP||5",
        "PID|2||B^^^POLYCLINIC^MR",
        "OBR|1|O3||TSH",
        "OBX|1|NM|TSH||2.15",
    ).patients
    assert [identifier.value for identifier in first.identifiers] == ["A"]
    assert [[o.code.text for o in order.observations] for order in first.orders] == [["WBC", "RBC"], ["CRP"]]
    assert [order.position for order in first.orders] == [1, 2]
    assert [[o.code.text for o in order.observations] for order in second.orders] == [["TSH"]]
    assert (first.position, second.position) == (1, 2)


def test_a_remark_belongs_to_the_segment_before_it(report):
    result = report(
        "NTE|1||on the message",
        "PID|1||A",
        "NTE|1||on the patient",
        "ORC|RE|O1",
        "OBR|1|O1",
        "NTE|1||on the order",
        "OBX|1|NM|WBC||6.20",
        "NTE|1||first line~second line",
        "NTE|2||on the observation",
        "OBX|2|NM|RBC||4.10",
        "SPM|1|S1",
        "NTE|1||on the specimen",
    )
    (patient,) = result.patients
    (order,) = patient.orders
    assert result.notes == ("on the message",)
    assert patient.notes == ("on the patient",)
    assert order.notes == ("on the order",)
    assert order.observations[0].notes == ("first line\nsecond line", "on the observation")
    assert order.observations[1].notes == ()
    assert order.specimens[0].notes == ("on the specimen",)


def test_a_patient_is_read_with_all_identifiers(patient):
    read = patient(
        "PID|1||~A^^^POLYCLINIC^MR~B^^^&1.2.643&ISO^SNILS~^^^X||~^^^^^^S~Testova&van^Anna^Testovna||19900102|F",
        "PV1|1|O|||||||||||||||||VISIT-1^^^POLYCLINIC",
        "OBR|1",
    )
    assert [(i.value, i.authority, i.type_code) for i in read.identifiers] == [
        ("A", "POLYCLINIC", "MR"),
        ("B", "1.2.643", "SNILS"),
    ]
    assert read.identifiers[1].universal_id_type == "ISO"
    assert (read.family_name, read.given_name, read.middle_name) == ("Testova", "Anna", "Testovna")
    assert (read.birth_on, read.sex, read.visit.value) == (date(1990, 1, 2), "F", "VISIT-1")


def test_results_without_a_patient_are_kept(patient):
    read = patient("OBR|1|O1", "OBX|1|NM|WBC||6.20")
    assert read.has_patient is False
    assert read.identifiers == ()
    assert len(read.orders[0].observations) == 1


def test_order_numbers_come_from_either_segment(patient):
    by_orc, by_obr = patient("ORC|RE|O1^NS|F1^LIS", "OBR|1|||A", "ORC|RE|X", "OBR|2|O2^NS|F2^LIS|B").orders
    assert (by_orc.placer.value, by_orc.placer.namespace, by_orc.filler.value) == ("O1", "NS", "F1")
    assert (by_obr.placer.value, by_obr.filler.value) == ("O2", "F2")
    assert by_orc.order_control == "RE"


def test_a_reflex_order_names_its_parent(patient):
    fields = ["OBR", "2", "O1", "F2", "CULTURE", *[""] * 24, "O1&NS^F1&LIS"]
    (order,) = patient("|".join(fields)).orders
    assert (order.parent.value, order.parent.namespace) == ("F1", "LIS")


def test_an_observation_is_read_whole(patient):
    fields = ["OBX", "1", "NM", "718-7^Hb^LN^HB^Гемоглобин^L", "1.1", "4.10", "g/L^^UCUM", "120-140"]
    fields += [
        "L~HH",
        "",
        "",
        "F",
        "",
        "",
        "20260115101500+0300",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "Test Lab^D",
    ]
    (observation,) = patient("OBR|1", "|".join(fields)).orders[0].observations
    assert [coding.code for coding in observation.code.codings] == ["718-7", "HB"]
    assert observation.sub_id == "1.1"
    assert observation.values[0].number == Decimal("4.10")
    assert observation.values[0].text == "4.10"
    assert observation.units.first.code == "g/L"
    assert observation.reference_range == "120-140"
    assert observation.flags == ("L", "HH")
    assert observation.is_critical
    assert observation.status is ResultStatus.FINAL
    assert observation.observed_at.at == datetime(2026, 1, 15, 7, 15, tzinfo=UTC)
    assert observation.performer == "Test Lab"


@pytest.mark.parametrize(
    ("flags", "critical"),
    [("HH", True), ("LL^critical^HL70078", True), ("AA", True), ("H", False), ("", False)],
)
def test_critical_flags_are_recognised(patient, flags, critical):
    (observation,) = patient("OBR|1", f"OBX|1|NM|K||6.9|||{flags}").orders[0].observations
    assert observation.is_critical is critical


def test_repeated_values_are_all_kept(patient):
    (observation,) = patient("OBR|1", "OBX|1|TX|a||line one~line two").orders[0].observations
    assert [value.text for value in observation.values] == ["line one", "line two"]


@pytest.mark.parametrize("value", ["", '""'])
def test_an_empty_or_null_value_is_no_value(patient, value):
    (observation,) = patient("OBR|1", f"OBX|1|NM|a||{value}").orders[0].observations
    assert observation.values == ()


def test_observations_with_equal_codes_are_all_kept(patient):
    observations = (
        patient("OBR|1", "OBX|1|NM|a|1|1", "OBX|2|NM|a|1|2", "OBX|3|NM|a|2|3").orders[0].observations
    )
    assert [(o.position, o.sub_id, o.values[0].text) for o in observations] == [
        (1, "1", "1"),
        (2, "1", "2"),
        (3, "2", "3"),
    ]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("F", "final"),
        ("P", "preliminary"),
        ("R", "preliminary"),
        ("S", "partial"),
        ("I", "registered"),
        ("C", "corrected"),
        ("W", "entered-in-error"),
        ("D", "entered-in-error"),
        ("X", "cancelled"),
        ("A", "amended"),
        ("?", "corrected"),
        ("", "corrected"),
    ],
)
def test_observation_status_follows_obx_11_and_else_the_order(patient, code, status):
    obr = "|".join(["OBR", "1", *[""] * 23, "C"])
    (order,) = patient(obr, f"OBX|1|NM|a||1||||||{code}").orders
    assert order.status is ResultStatus.CORRECTED
    assert order.observations[0].status == status


@pytest.mark.parametrize(
    ("codes", "status"),
    [("FF", "final"), ("FP", "partial"), ("PP", "preliminary"), ("", "registered"), ("?", "preliminary")],
)
def test_an_order_without_status_takes_that_of_its_observations(patient, codes, status):
    (order,) = patient("OBR|1", *[f"OBX|1|NM|a||1||||||{code}" for code in codes]).orders
    assert order.status == status


def test_specimen_observations_stay_with_the_specimen(patient):
    (order,) = patient("OBR|1", "OBX|1|NM|a||1", "SPM|1|S1||BLD^Blood", "OBX|1|NM|volume||5").orders
    assert [o.code.text for o in order.observations] == ["a"]
    assert order.specimens[0].type.text == "Blood"
    assert [o.code.text for o in order.specimens[0].observations] == ["volume"]


def test_a_specimen_before_the_results_does_not_take_them(patient):
    (order,) = patient("OBR|1", "SPM|1|S1", "OBX|1|NM|a||1", "OBX|2|NM|b||2").orders
    assert [o.code.text for o in order.observations] == ["a", "b"]


def test_observations_before_any_order_stay_with_the_patient(patient):
    read = patient("PID|1||A", "OBX|1|NM|height||170", "OBR|1", "OBX|1|NM|a||1")
    assert [o.code.text for o in read.observations] == ["height"]
    assert len(read.orders[0].observations) == 1


def test_times_take_the_offset_of_msh_7_before_the_zone_of_the_laboratory(compose):
    raw = compose("OBR|1|||A|||202601151030", msh={7: "20260115120000+0500"})
    (message,) = assess(raw).messages
    (order,) = read_report(message.message, zone=ZoneInfo("Europe/Moscow")).patients[0].orders
    assert order.observed_at.at == datetime(2026, 1, 15, 5, 30, tzinfo=UTC)


def test_times_take_the_zone_of_the_laboratory_where_the_message_names_none(compose):
    (message,) = assess(compose("OBR|1|||A|||202601151030")).messages
    (order,) = read_report(message.message, zone=ZoneInfo("Europe/Moscow")).patients[0].orders
    assert order.observed_at.at == datetime(2026, 1, 15, 7, 30, tzinfo=UTC)
    (unzoned,) = read_report(message.message).patients[0].orders
    assert unzoned.observed_at.at is None
