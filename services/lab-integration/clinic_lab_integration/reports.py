"""From HL7 to the domain: the reports of a patient group, each with the key that its versions share.

Nothing is left out: observations of specimens stand with their report's, and observations without an
order make a report of their own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from clinic_shared.events import wire_instant

from clinic_lab_integration.domain import (
    OWN_AUTHORITY,
    Identifier,
    ObservationState,
    ReportContent,
    SentReport,
)
from clinic_lab_integration.hl7 import (
    AssessedMessage,
    Message,
    Observation,
    Order,
    PatientResult,
    Report,
    ResultStatus,
    read_report,
)
from clinic_lab_integration.hl7.datatypes import Code, EntityIdentifier, PatientIdentifier, read_timestamp
from clinic_lab_integration.meaning import LOINC, Meaning

# HL7 table 0396 to the URIs that FHIR R4 names code systems by.
_SYSTEMS = {
    "LN": LOINC,
    "SCT": "http://snomed.info/sct",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "UCUM": "http://unitsofmeasure.org",
}
_LONGEST_NAME = 200  # what contracts allow an identifier, and an index a key

# OBX-11, HL7 table 0085: final, or a change of what was final.
_RELEASED_CODES = frozenset("FUVCABWD")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a message says, whatever format it came in; `sent_at` by the sender's clock."""

    report: Report
    sent_at: datetime | None


def group_count(message: Message) -> int:
    """How many patient groups a message has, without reading it: each PID opens one, and so do results before any."""
    count = 0
    for segment in message.segments[1:]:
        if segment.name == "PID" or (not count and segment.name in {"PV1", "ORC", "OBR", "OBX", "SPM"}):
            count += 1
    return max(count, 1)


def read(message: AssessedMessage, zone: tzinfo | None) -> Content:
    if message.message is None:
        return Content(report=Report((), ()), sent_at=None)
    header = message.header
    sent_at = read_timestamp(header.segment.text(7, 1), header.default_zone or zone).at
    return Content(report=read_report(message.message, zone=zone), sent_at=sent_at)


def identifiers(group: PatientResult, authorities: dict[str, str]) -> tuple[Identifier, ...]:
    """The group's identifiers under the names that we know their authorities by.

    One without an authority counts only where the lab's configuration says whose it is: a bare number
    is somebody's in every clinic.
    """
    found = [
        Identifier(authorities.get(name, name), identifier.value)
        for identifier in group.identifiers
        for name in _authority_names(identifier)
    ]
    return tuple(dict.fromkeys(i for i in found if i.authority and _is_indexable(i)))


def _is_indexable(identifier: Identifier) -> bool:
    return max(len(identifier.authority), len(identifier.value)) <= _LONGEST_NAME


def _authority_names(identifier: PatientIdentifier) -> Sequence[str]:
    names = [name for name in (identifier.namespace, identifier.universal_id) if name]
    return names or [""]


def sent_reports(
    group: PatientResult, authorities: dict[str, str], *, sent_at: datetime | None, fallback_key: str
) -> tuple[SentReport, ...]:
    """The reports of a group, numbered from 0. `fallback_key` names those that carry no number at all."""
    seen: dict[str, int] = {}
    reports = []
    for index, (order, observations) in enumerate(_ordered(group)):
        key = _key(order) or f"message:{fallback_key}:{index}"
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            # Microbiology repeats number and code; the n-th of its like is the n-th next time, too.
            key = f"{key}#{seen[key]}"
        reports.append(_sent(index, _short(key), group, order, observations, authorities, sent_at))
    return tuple(reports)


def _short(key: str) -> str:
    return key if len(key) <= _LONGEST_NAME else "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def observations_of(group: PatientResult, report_index: int) -> tuple[Observation, ...]:
    """The observations of one report, by its place among `sent_reports`."""
    for index, (_, observations) in enumerate(_ordered(group)):
        if index == report_index:
            return observations
    return ()


def _ordered(group: PatientResult) -> Iterator[tuple[Order | None, tuple[Observation, ...]]]:
    if group.observations:
        yield None, group.observations
    for order in group.orders:
        yield order, order.observations + tuple(o for s in order.specimens for o in s.observations)


def _key(order: Order | None) -> str | None:
    if order is None:
        return None
    code = order.service.first
    examined = f"{code.code or code.display}^{code.system}"
    if order.filler:
        return f"filler:{_number(order.filler)}|{examined}"
    if order.placer:
        return f"placer:{_number(order.placer)}|{examined}"
    return f"at:{order.observed_at.text}|{examined}" if order.observed_at.text else None


def _number(number: EntityIdentifier) -> str:
    return f"{number.value}^{number.authority}"


def _sent(
    index: int,
    key: str,
    group: PatientResult,
    order: Order | None,
    observations: tuple[Observation, ...],
    authorities: dict[str, str],
    sent_at: datetime | None,
) -> SentReport:
    code, system, display = _coding(order.service) if order else (None, None, None)
    specimens = order.specimens if order else ()
    notes = (*group.notes, *(order.notes if order else ()), *(note for s in specimens for note in s.notes))
    collected = [s.collected_at.at for s in specimens if s.collected_at.at]
    observed_at = order.observed_at.at if order else None
    return SentReport(
        index=index,
        key=key,
        placer_order_number=order.placer.value if order and order.placer else None,
        filler_order_number=order.filler.value if order and order.filler else None,
        own_order_number=_own_number(order, authorities),
        code=code,
        system=system,
        display=display,
        status=_status(order, observations),
        collected_at=collected[0] if collected else observed_at,
        reported_at=order.reported_at.at if order else None,
        sent_at=sent_at,
        parent_filler_order_number=order.parent.value if order and order.parent else None,
        content=ReportContent(
            observations=tuple(_observation(o, observed_at) for o in observations),
            notes=tuple(note for note in notes if note),
        ),
    )


def _status(order: Order | None, observations: tuple[Observation, ...]) -> ResultStatus:
    """OBR-25; where the lab leaves it empty, a report all of whose observations are released is final."""
    stated = order is not None and order.status_code
    if not stated and observations and all(o.status_code in _RELEASED_CODES for o in observations):
        return ResultStatus.FINAL
    return order.status if order else ResultStatus.PRELIMINARY


def _own_number(order: Order | None, authorities: dict[str, str]) -> str | None:
    """The placer's number when it is ours: opaque, compared whole, whatever it looks like."""
    if order is None or order.placer is None:
        return None
    names = {authorities.get(n, n) for n in (order.placer.namespace, order.placer.universal_id) if n}
    return order.placer.value if not names or OWN_AUTHORITY in names else None


def _observation(observation: Observation, order_observed_at: datetime | None) -> ObservationState:
    code, system, display = _coding(observation.code)
    return ObservationState(
        code=code,
        system=system,
        display=display,
        value_type=observation.value_type or None,
        value="\n".join(value.text for value in observation.values) or None,
        units=observation.units.first.code or observation.units.text or None,
        reference_range=observation.reference_range or None,
        interpretation=observation.flags,
        status=observation.status_code or None,
        observed_at=wire_instant(observation.observed_at.at or order_observed_at),
        sub_id=observation.sub_id or None,
        notes=tuple(note for note in observation.notes if note),
        meaning=_standard(observation.code),
    )


def _standard(code: Code) -> Meaning | None:
    """What the laboratory says in LOINC, in either of the two codes that it may give."""
    found = next((c for c in code.codings if _SYSTEMS.get(c.system) == LOINC and c.code), None)
    return Meaning(code=found.code, display=found.display or None) if found else None


def _coding(code: Code) -> tuple[str | None, str | None, str | None]:
    first = code.first
    return first.code or None, _SYSTEMS.get(first.system, first.system) or None, code.text or None
