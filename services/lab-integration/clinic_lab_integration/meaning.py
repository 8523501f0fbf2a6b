"""What we make of an observation, beside what the laboratory wrote: its LOINC code, its unit, whether it is critical.

What isn't certain is left open: an unmapped code is shown as it came, and somebody is asked to map it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum

from clinic_lab_integration import units

LOINC = "http://loinc.org"


class MapKind(StrEnum):
    TEST = "test"
    UNIT = "unit"


@dataclass(frozen=True)
class SourceCode:
    """A code as a laboratory writes it; `system` is empty for its own codes."""

    kind: MapKind
    system: str
    code: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a code stands for: a LOINC code with the unit that we show it in, or a UCUM code."""

    code: str
    display: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class CodeMap:
    """A laboratory's map in one of its versions; version 0 is empty."""

    version: int = 0
    entries: Mapping[SourceCode, Target] = field(default_factory=dict)


@dataclass(frozen=True)
class PanicRange:
    """Below `low` or above `high` somebody must be told at once, whatever the laboratory's flag says."""

    code: str
    unit: str | None
    low: Decimal | None
    high: Decimal | None

    def flag(self, value: str | None, unit: str | None) -> str | None:
        """Return LL or HH; None inside, and where the value can't be compared."""
        number = units.same_unit_number(value, unit, self.unit)
        if number is None:
            return None
        comparator, amount = number
        # `<5` is certainly below a limit of 5 or more, and perhaps below any other: only what is certain counts.
        if self.low is not None and not comparator.startswith(">"):
            at_limit = comparator == "<" and amount == self.low
            if amount < self.low or at_limit:
                return "LL"
        if self.high is not None and not comparator.startswith("<"):
            at_limit = comparator == ">" and amount == self.high
            if amount > self.high or at_limit:
                return "HH"
        return None


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """`value` and `units` are the laboratory's in UCUM, or converted to the unit that the map wants."""

    code: str | None = None
    display: str | None = None
    units: str | None = None
    value: str | None = None
    panic: str | None = None
    map_version: int | None = None


@dataclass(frozen=True, kw_only=True)
class Written:
    """What of an observation has a meaning to find."""

    code: str | None
    system: str | None
    display: str | None
    value: str | None
    units: str | None
    standard: Meaning | None = None
    """What the laboratory itself says in LOINC, beside its own code."""


def understand(
    written: Written, code_map: CodeMap, panic_ranges: Mapping[str, PanicRange]
) -> tuple[Meaning, tuple[SourceCode, ...]]:
    """Return what an observation means, and what of it nobody has mapped."""
    unmapped: list[SourceCode] = []
    test = _test(written, code_map, unmapped)
    unit = _unit(written, code_map, unmapped)
    code = test.code if test else None
    meaning = Meaning(
        code=code,
        display=test.display if test else None,
        units=unit,
        map_version=code_map.version or None,
    )
    if test is not None and test.unit and unit and test.unit != unit:
        value = units.converted(written.value, unit, test.unit)
        if value is not None:
            meaning = replace(meaning, value=value, units=test.unit)
    limits = panic_ranges.get(code or "")
    if limits is not None:
        meaning = replace(meaning, panic=limits.flag(written.value, unit))
    return meaning, tuple(unmapped)


def _test(written: Written, code_map: CodeMap, unmapped: list[SourceCode]) -> Target | None:
    if not written.code:
        return None
    source = SourceCode(MapKind.TEST, written.system or "", written.code)
    found = code_map.entries.get(source)
    if found is None and written.standard is not None and written.standard.code:
        found = Target(code=written.standard.code, display=written.standard.display)
    if found is None:
        unmapped.append(source)
    return found


def _unit(written: Written, code_map: CodeMap, unmapped: list[SourceCode]) -> str | None:
    if not written.units:
        return None
    source = SourceCode(MapKind.UNIT, "", written.units)
    mapped = code_map.entries.get(source)
    found = mapped.code if mapped else units.to_ucum(written.units)
    if found is None:
        unmapped.append(source)
    return found
