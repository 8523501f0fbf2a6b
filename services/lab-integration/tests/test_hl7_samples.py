"""The project's own samples say what their README promises."""

import pytest
from clinic_lab_integration.hl7 import Disposition, ResultStatus, read_report

from .conftest import assess


def patients(samples, name):
    return [
        p for m in assess((samples / name).read_bytes()).messages for p in read_report(m.message).patients
    ]


def test_all_samples_are_taken(samples):
    names = sorted(path.name for path in samples.glob("*.hl7"))
    assert len(names) == 6
    for name in names:
        for message in assess((samples / name).read_bytes()).messages:
            assert (message.disposition, message.findings) == (Disposition.ACCEPTED, ()), name


def test_the_panel_has_ten_observations_and_its_placeholders(samples):
    (patient,) = patients(samples, "panel.hl7")
    (order,) = patient.orders
    assert [(i.value, i.authority) for i in patient.identifiers] == [("PATIENT-NUMBER", "POLYCLINIC")]
    assert (order.placer.value, order.placer.namespace) == ("ORDER-NUMBER", "POLYCLINIC")
    assert [o.values[0].text for o in order.observations][:3] == ["6.20", "4.10", "112"]
    assert len(order.observations) == 10


def test_the_critical_sample_is_critical(samples):
    (patient,) = patients(samples, "critical.hl7")
    assert [o.is_critical for o in patient.orders[0].observations] == [True, False]


def test_the_correction_corrects_the_panel(samples):
    (before,), (after,) = patients(samples, "panel.hl7"), patients(samples, "correction.hl7")
    assert before.orders[0].filler == after.orders[0].filler
    assert after.orders[0].observations[0].status is ResultStatus.CORRECTED


@pytest.mark.parametrize("name", ["two-patients.hl7", "two-messages.hl7"])
def test_two_patients_are_two(samples, name):
    assert [p.identifiers[0].value for p in patients(samples, name)] == ["PATIENT-NUMBER", "PATIENT-NUMBER-2"]


def test_undeclared_windows_1251_is_read(samples):
    (patient,) = patients(samples, "windows-1251.hl7")
    assert (patient.family_name, patient.given_name) == ("Тестова", "Анна")
    assert patient.orders[0].observations[0].units.text == "мг/л"
