"""Units: from what laboratories write to UCUM, and conversion where it can't mislead.

Two quantities of one dimension aren't always comparable: an international unit is defined for one substance,
an equivalent depends on the ion's charge. What isn't certain stays as it was written.
"""

import re
from collections import Counter
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any

# What laboratories write most, to UCUM (case-sensitive). These need no parser, which takes a second to load.
_COMMON = (
    "%", "1", "/L", "10*3/uL", "10*6/uL", "10*9/L", "10*12/L", "10*6/L", "U/L", "k[IU]/L", "[IU]/L", "[IU]/mL",
    "m[IU]/L", "m[IU]/mL", "u[IU]/mL", "fL", "pg", "pg/mL", "ng/mL", "ng/dL", "ng/L", "ug/mL", "ug/dL", "ug/L", "mg/L",
    "mg/dL", "mg/mL", "g/L", "g/dL", "mmol/L", "umol/L", "nmol/L", "pmol/L", "mol/L", "mmol/mol", "meq/L", "mosm/kg",
    "mm/h", "mm[Hg]", "kPa", "s", "min", "h", "mL/min", "mL/min/{1.73_m2}", "{INR}", "{index}", "{titer}", "mg/g",
    "mg/mmol", "g/(24.h)", "mg/(24.h)", "mL", "L", "cm", "kg", "Cel", "ug/g", "ukat/L", "nkat/L",
)  # fmt: skip
_SPELLINGS = {
    "г/л": "g/L", "г/дл": "g/dL", "мг/л": "mg/L", "мг/дл": "mg/dL", "мг/мл": "mg/mL", "мкг/л": "ug/L",
    "мкг/мл": "ug/mL", "мкг/дл": "ug/dL", "нг/мл": "ng/mL", "нг/дл": "ng/dL", "нг/л": "ng/L", "пг/мл": "pg/mL",
    "пг": "pg", "фл": "fL", "ммоль/л": "mmol/L", "мкмоль/л": "umol/L", "нмоль/л": "nmol/L", "пмоль/л": "pmol/L",
    "ед/л": "U/L", "е/л": "U/L", "ме/л": "[IU]/L", "ме/мл": "[IU]/mL", "мме/л": "m[IU]/L", "мме/мл": "m[IU]/mL",
    "мкме/мл": "u[IU]/mL", "мед/л": "mU/L", "мм/ч": "mm/h", "мм/час": "mm/h", "сек": "s", "с": "s",
    "мм рт. ст.": "mm[Hg]", "мм рт.ст.": "mm[Hg]", "mmhg": "mm[Hg]", "тыс/мкл": "10*3/uL", "млн/мкл": "10*6/uL",
    "10^9/л": "10*9/L", "10^12/л": "10*12/L", "x10^9/l": "10*9/L", "x10^12/l": "10*12/L", "10^9/l": "10*9/L",
    "10^12/l": "10*12/L", "10^3/ul": "10*3/uL", "10^6/ul": "10*6/uL", "x10e9/l": "10*9/L", "x10e12/l": "10*12/L",
    "10e9/l": "10*9/L", "10e12/l": "10*12/L", "k/ul": "10*3/uL", "m/ul": "10*6/uL", "iu/l": "[IU]/L",
    "iu/ml": "[IU]/mL", "miu/l": "m[IU]/L", "miu/ml": "m[IU]/mL", "uiu/ml": "u[IU]/mL", "mcg/l": "ug/L",
    "mcg/ml": "ug/mL", "mcg/dl": "ug/dL", "µg/l": "ug/L", "µmol/l": "umol/L", "мл/мин": "mL/min", "sec": "s",
    "mm/hr": "mm/h",
}  # fmt: skip
_AS_WRITTEN = frozenset(_COMMON)
_IN_LOWER_CASE = {code.lower(): code for code in _AS_WRITTEN if code not in {"1", "s", "h", "L"}}
_MICRO = str.maketrans({"\N{GREEK SMALL LETTER MU}": "µ"})
_LONGEST = 60
_NUMBER = re.compile(r"^(?P<sign>[<>]=?)?\s*(?P<number>[+-]?\d+(?:[.,]\d+)?)$")
_ARBITRARY = re.compile(r"\[[^\]]*\]|\{[^}]*\}")
_BY_CHARGE = re.compile(r"(?<![A-Za-z])[a-z]{0,2}(?:eq|osm)(?![A-Za-z])")
_SPECIAL = frozenset({"Cel", "[degF]", "[pH]", "[degRe]"})
_MOST_DIGITS = 12


def to_ucum(written: str | None) -> str | None:
    """Return the UCUM code of what a laboratory wrote, None where nobody can be sure."""
    text = (written or "").strip()
    if not text or len(text) > _LONGEST:
        return None
    if text in _AS_WRITTEN:
        return text
    folded = text.translate(_MICRO).lower().replace("×", "x").replace("х10", "x10")  # Cyrillic х
    found = _SPELLINGS.get(folded) or _IN_LOWER_CASE.get(folded)
    return found or (text if text.isascii() and is_ucum(text) else None)


@lru_cache(maxsize=2048)
def is_ucum(code: str) -> bool:
    """Tell whether this is a valid UCUM code. The first call loads the grammar."""
    if code in _AS_WRITTEN:
        return True
    from ucumvert import InvalidUcumError  # noqa: PLC0415  # half a second and 20 MB that most processes don't need

    try:
        _registry().from_ucum(code)
    except (InvalidUcumError, ValueError, KeyError, AttributeError):
        return False
    return True


def converted(value: str | None, unit: str, wanted: str) -> str | None:
    """Return a number as it reads in another unit, its comparator kept; None where that isn't safe."""
    number = read_number(value)
    factor = conversion_factor(unit, wanted) if number else None
    if number is None or factor is None:
        return None
    comparator, amount = number
    return comparator + _with_digits_of(amount, amount * factor)


def read_number(value: str | None) -> tuple[str, Decimal] | None:
    """Split `<0.01` into its comparator and its number; None for whatever isn't one number."""
    found = _NUMBER.match((value or "").strip())
    if found is None:
        return None
    try:
        return found["sign"] or "", Decimal(found["number"].replace(",", "."))
    except InvalidOperation:
        return None


@lru_cache(maxsize=2048)
def conversion_factor(unit: str, wanted: str) -> Decimal | None:
    """What to multiply by; None where the units don't measure the same, or that can't be known."""
    if unit == wanted:
        return Decimal(1)
    if not _is_comparable(unit, wanted) or not (is_ucum(unit) and is_ucum(wanted)):
        return None
    from pint import PintError  # noqa: PLC0415  # as above

    registry = _registry()
    try:
        factor = float((1 * registry.from_ucum(unit)).to(registry.from_ucum(wanted)).magnitude)
    except PintError:
        return None
    return Decimal(f"{factor:.{_MOST_DIGITS}g}")


def _is_comparable(unit: str, wanted: str) -> bool:
    """Units that are defined for one substance, by charge or with an offset convert into nothing else."""
    if _SPECIAL & {unit, wanted} or _BY_CHARGE.search(unit) or _BY_CHARGE.search(wanted):
        return False
    return Counter(_ARBITRARY.findall(unit)) == Counter(_ARBITRARY.findall(wanted))


def _with_digits_of(written: Decimal, exact: Decimal) -> str:
    """As many significant digits as were written: a conversion makes nothing more precise."""
    digits = max(len(written.as_tuple().digits), 2)
    if exact == 0:
        return "0"
    rounded = round(exact, digits - exact.adjusted() - 1)
    return f"{rounded:f}"


@cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry  # noqa: PLC0415  # as above

    return PintUcumRegistry()


def same_unit_number(value: str | None, unit: str | None, wanted: str | None) -> tuple[str, Decimal] | None:
    """Return the number in the wanted unit, for comparing; exact, not rounded. None where that isn't safe."""
    number = read_number(value)
    if number is None or (unit is None) != (wanted is None):
        return None
    factor = conversion_factor(unit, wanted) if unit and wanted else Decimal(1)
    return None if factor is None else (number[0], number[1] * factor)
