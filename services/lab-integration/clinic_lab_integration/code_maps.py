"""Code maps: how each laboratory's codes and units are understood. Results flow while something isn't mapped."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import InvalidRequestError, NotFoundError, ReferenceNotYetKnownError
from clinic_shared.principal import Principal

from clinic_lab_integration import code_map_store, store, units
from clinic_lab_integration.domain import ObservationState, ReportContent, SentReport
from clinic_lab_integration.meaning import (
    LOINC,
    CodeMap,
    MapKind,
    Meaning,
    PanicRange,
    SourceCode,
    Target,
    Written,
    understand,
)
from clinic_lab_integration.once import once

_MOST_MAPS = 64
_MOST_KNOWN_GAPS = 10_000
_LONGEST_CODE = 200

_maps: OrderedDict[tuple[UUID, int], CodeMap] = OrderedDict()
"""Versions never change, so a map that was read stays right; which version holds is asked each time."""
_known_gaps: set[tuple[UUID, SourceCode]] = set()
"""What is on the work-list already, so that each result doesn't write it there again."""


async def understood(
    tx: Transaction, partner_id: UUID, reports: Sequence[SentReport], *, message_id: UUID
) -> list[SentReport]:
    """Return the reports with what each observation means; what nobody has mapped goes to the work-list."""
    meanings, gaps = await _understand(tx, partner_id, reports)
    await _note_gaps(tx, partner_id, gaps, message_id)
    return [_with_meanings(report, meanings) for report in reports]


async def unmapped(
    tx: Transaction, partner_id: UUID, reports: Sequence[SentReport]
) -> Mapping[SourceCode, str | None]:
    """Return what of these nobody has mapped, with its name, and write nothing down."""
    return (await _understand(tx, partner_id, reports))[1]


async def _understand(
    tx: Transaction, partner_id: UUID, reports: Sequence[SentReport]
) -> tuple[Mapping[Written, Meaning], Mapping[SourceCode, str | None]]:
    code_map = await _current_map(tx, partner_id)
    written = {_written(o): None for report in reports for o in report.content.observations}
    ranges = await once(tx, "panic-ranges", partial(code_map_store.panic_ranges, tx))
    gaps: dict[SourceCode, str | None] = {}
    meanings: dict[Written, Meaning] = {}
    for one in written:
        meanings[one], missing = understand(one, code_map, ranges)
        gaps |= {source: one.display for source in missing if len(source.code) <= _LONGEST_CODE}
    return meanings, gaps


def _written(observation: ObservationState) -> Written:
    return Written(
        code=observation.code,
        system=observation.system,
        display=observation.display,
        value=observation.value,
        units=observation.units,
        standard=observation.meaning,
    )


def _with_meanings(report: SentReport, meanings: Mapping[Written, Meaning]) -> SentReport:
    observations = tuple(replace(o, meaning=meanings[_written(o)]) for o in report.content.observations)
    content = report.content
    return replace(
        report,
        content=ReportContent(observations=observations, notes=content.notes, conclusion=content.conclusion),
    )


async def _current_map(tx: Transaction, partner_id: UUID) -> CodeMap:
    asked = partial(code_map_store.current_version, tx, partner_id)
    version = await once(tx, ("code-map", partner_id), asked)
    if version == 0:
        return CodeMap()
    key = (partner_id, version)
    if key not in _maps:
        _maps[key] = await code_map_store.read_map(tx, partner_id, version)
        while len(_maps) > _MOST_MAPS:
            _maps.popitem(last=False)
    _maps.move_to_end(key)
    return _maps[key]


async def _note_gaps(
    tx: Transaction, partner_id: UUID, gaps: Mapping[SourceCode, str | None], message_id: UUID
) -> None:
    new = {source: display for source, display in gaps.items() if (partner_id, source) not in _known_gaps}
    if not new:
        return
    await code_map_store.add_unmapped(tx, partner_id, new, message_id=message_id)
    tx.count(partial(_remember_gaps, partner_id, tuple(new)))


def _remember_gaps(partner_id: UUID, sources: Sequence[SourceCode]) -> None:
    if len(_known_gaps) > _MOST_KNOWN_GAPS:
        _known_gaps.clear()
    _known_gaps.update((partner_id, source) for source in sources)


async def change_map(
    tx: Transaction,
    partner_id: UUID,
    changes: Mapping[SourceCode, Target | None],
    *,
    caller: Principal,
    expected_version: int | None,
) -> int:
    """Make the next version of a laboratory's map; None takes an entry out. It holds for results from now on."""
    if await store.find_partner(tx, partner_id, lock=True) is None:
        raise ReferenceNotYetKnownError("The laboratory is not known here yet.", reference="partner_id")
    version = await code_map_store.current_version(tx, partner_id)
    tx.require_version(version, expected_version)
    for source, target in changes.items():
        _require_valid_units(source, target)
    await code_map_store.add_version(tx, partner_id, version + 1, changes, changed_by=caller.subject)
    tx.count(partial(_forget_gaps, partner_id))
    tx.audit(
        AuditEntry(
            action=Action.UPDATE,
            resource_type="LabCodeMap",
            resource_id=partner_id,
            details={"version": str(version + 1), "changes": str(len(changes))},
        )
    )
    return version + 1


def _forget_gaps(partner_id: UUID) -> None:
    """What is taken out of a map is a gap again."""
    _known_gaps.difference_update([gap for gap in _known_gaps if gap[0] == partner_id])


def _require_valid_units(source: SourceCode, target: Target | None) -> None:
    if target is None:
        return
    unit = target.code if source.kind is MapKind.UNIT else target.unit
    if unit is not None and not units.is_ucum(unit):
        raise InvalidRequestError(
            f"`{unit}` is no UCUM unit (they are case-sensitive: mmol/L, 10*9/L, [IU]/L)."
        )


async def set_panic_range(
    tx: Transaction, panic: PanicRange, *, display: str | None, expected_version: int | None
) -> int:
    """Say from which values on a test's result is critical. Holds for results from now on."""
    if panic.unit is not None and not units.is_ucum(panic.unit):
        raise InvalidRequestError("The unit is no UCUM unit.")
    known = await code_map_store.find_panic_range(tx, panic.code)
    version = known.version if known else 0
    tx.require_version(version, expected_version)
    await code_map_store.save_panic_range(tx, panic, version=version + 1, display=display)
    _audit_panic_range(tx, Action.UPDATE, panic.code)
    return version + 1


async def delete_panic_range(tx: Transaction, code: str) -> None:
    if await code_map_store.find_panic_range(tx, code) is None:
        raise NotFoundError
    await code_map_store.delete_panic_range(tx, code)
    _audit_panic_range(tx, Action.DELETE, code)


def _audit_panic_range(tx: Transaction, action: Action, code: str) -> None:
    tx.audit(AuditEntry(action=action, resource_type="LabPanicRange", details={"code": f"{LOINC}|{code}"}))
