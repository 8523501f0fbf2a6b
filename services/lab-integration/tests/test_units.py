"""Units as laboratories write them, in UCUM; converted only where that can't mislead."""

import pytest
from clinic_lab_integration.units import conversion_factor, converted, is_ucum, to_ucum


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("mmol/L", "mmol/L"),
        ("mmol/l", "mmol/L"),
        ("ммоль/л", "mmol/L"),
        ("г/л", "g/L"),
        ("x10^9/L", "10*9/L"),
        ("х10^9/l", "10*9/L"),  # a Cyrillic х
        ("10^9/л", "10*9/L"),
        ("K/uL", "10*3/uL"),
        ("mIU/L", "m[IU]/L"),
        ("мкМЕ/мл", "u[IU]/mL"),
        ("µmol/L", "umol/L"),
        ("\N{GREEK SMALL LETTER MU}mol/L", "umol/L"),
        ("U/ml", "U/ml"),
        ("мм/ч", "mm/h"),
        ("%", "%"),
        ("cells/field", None),
        ("у.е.", None),
        ("", None),
        (None, None),
        ("x" * 100, None),
    ],
)
def test_what_laboratories_write_in_ucum(written: str | None, code: str | None) -> None:
    assert to_ucum(written) == code


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        ("9.5", "g/dL", "g/L", "95"),
        ("95.10", "mg/dL", "g/L", "0.9510"),
        ("<0.01", "ng/mL", "ug/L", "<0.010"),
        ("5,1", "mmol/L", "umol/L", "5100"),
        ("250", "10*3/uL", "10*9/L", "250"),
        ("120", "U/L", "ukat/L", "2.00"),
        ("0", "g/dL", "g/L", "0"),
        ("1", "pg", "fg", "1000"),
    ],
)
def test_a_number_keeps_its_comparator_and_gains_no_digits(value, unit, wanted, expected) -> None:
    assert converted(value, unit, wanted) == expected


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("mmol/L", "mg/dL"),  # needs the substance
        ("m[IU]/L", "U/L"),
        ("[IU]/mL", "ug/mL"),
        ("meq/L", "mmol/L"),  # needs the charge
        ("mosm/kg", "mmol/kg"),
        ("Cel", "K"),
        ("mm[Hg]", "kPa"),
        ("g/L", "s"),
        ("nonsense", "g/L"),
    ],
)
def test_what_isn_t_certain_is_not_converted(unit: str, wanted: str) -> None:
    assert conversion_factor(unit, wanted) is None


@pytest.mark.parametrize("value", ["positive", "1:80", "3-5", "", None, "1e3", "NaN", "5.1 H"])
def test_what_is_no_number_is_not_converted(value: str | None) -> None:
    assert converted(value, "g/dL", "g/L") is None


def test_a_unit_that_ucum_knows_is_known() -> None:
    assert is_ucum("mL/min/{1.73_m2}")
    assert is_ucum("ug/min")
    assert not is_ucum("ug/fortnight")
