"""ORU^R01: patients, their orders, the observations of each (HL7 v2.5.1, 7.3.1).

`{ [PID {NTE}] { [ORC] OBR {NTE} {OBX {NTE}} {SPM {OBX}} } }` repeats: one message may carry several
patients and each several orders. A remark (NTE) belongs to the segment before it. What comes in
another place than the standard says is kept where it stands, never left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, tzinfo
from enum import StrEnum

from clinic_lab_integration.hl7.datatypes import (
    Code,
    EntityIdentifier,
    PatientIdentifier,
    Timestamp,
    Value,
    read_code,
    read_entity_identifier,
    read_patient_identifier,
    read_timestamp,
    read_value,
)
from clinic_lab_integration.hl7.header import Header
from clinic_lab_integration.hl7.model import NULL, Message, Repetition, Segment


class ResultStatus(StrEnum):
    """The platform's taxonomy: FHIR R4 DiagnosticReport.status without `unknown`."""

    REGISTERED = "registered"
    PARTIAL = "partial"
    PRELIMINARY = "preliminary"
    FINAL = "final"
    AMENDED = "amended"
    CORRECTED = "corrected"
    CANCELLED = "cancelled"
    ENTERED_IN_ERROR = "entered-in-error"


# OBX-11, HL7 table 0085. W: "post original as wrong, e.g. transmitted for wrong patient".
_OBSERVATION_STATUS = {
    "A": ResultStatus.AMENDED,
    "B": ResultStatus.AMENDED,
    "C": ResultStatus.CORRECTED,
    "D": ResultStatus.ENTERED_IN_ERROR,
    "F": ResultStatus.FINAL,
    "I": ResultStatus.REGISTERED,
    "N": ResultStatus.CANCELLED,
    "O": ResultStatus.REGISTERED,
    "P": ResultStatus.PRELIMINARY,
    "R": ResultStatus.PRELIMINARY,
    "S": ResultStatus.PARTIAL,
    "U": ResultStatus.FINAL,
    "V": ResultStatus.FINAL,
    "W": ResultStatus.ENTERED_IN_ERROR,
    "X": ResultStatus.CANCELLED,
}
# OBR-25, HL7 table 0123.
_ORDER_STATUS = {
    "A": ResultStatus.PARTIAL,
    "C": ResultStatus.CORRECTED,
    "F": ResultStatus.FINAL,
    "I": ResultStatus.REGISTERED,
    "M": ResultStatus.CORRECTED,
    "O": ResultStatus.REGISTERED,
    "P": ResultStatus.PRELIMINARY,
    "R": ResultStatus.PRELIMINARY,
    "S": ResultStatus.REGISTERED,
    "X": ResultStatus.CANCELLED,
    "Y": ResultStatus.CANCELLED,
    "Z": ResultStatus.CANCELLED,
}
# OBX-8, HL7 table 0078: below or above the panic limits, and very abnormal.
CRITICAL_FLAGS = frozenset({"HH", "LL", "AA"})


@dataclass(frozen=True, slots=True)
class Observation:
    """One OBX. `position` counts within its order: codes and sub-ids may repeat, places can't."""

    position: int
    value_type: str
    code: Code
    sub_id: str
    values: tuple[Value, ...]
    units: Code
    reference_range: str
    flags: tuple[str, ...]
    status_code: str
    status: ResultStatus
    observed_at: Timestamp
    performer: str
    notes: tuple[str, ...]

    @property
    def is_critical(self) -> bool:
        return not CRITICAL_FLAGS.isdisjoint(self.flags)


@dataclass(frozen=True, slots=True)
class Specimen:
    identifier: str
    type: Code
    collected_at: Timestamp
    received_at: Timestamp
    observations: tuple[Observation, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """One OBR with its ORC. `parent` is the filler's number of the order this one grew out of."""

    position: int
    order_control: str
    placer: EntityIdentifier | None
    filler: EntityIdentifier | None
    parent: EntityIdentifier | None
    service: Code
    status_code: str
    status: ResultStatus
    observed_at: Timestamp
    reported_at: Timestamp
    observations: tuple[Observation, ...]
    specimens: tuple[Specimen, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PatientResult:
    """One patient group. Without a PID it has no identifiers and can only be matched by its orders."""

    position: int
    has_patient: bool
    identifiers: tuple[PatientIdentifier, ...]
    family_name: str
    given_name: str
    middle_name: str
    birth_on: date | None
    sex: str
    visit: PatientIdentifier | None
    orders: tuple[Order, ...]
    observations: tuple[Observation, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an ORU^R01 says; `notes` are remarks on the message as a whole."""

    patients: tuple[PatientResult, ...]
    notes: tuple[str, ...]


def read_report(message: Message, *, zone: tzinfo | None = None) -> Report:
    """The results of a message; `zone` is the laboratory's, for times where the message names none."""
    header = Header(message.segments[0])
    reader = _Reader(header.default_zone or zone)
    for segment in message.segments[1:]:
        reader.take(segment)
    return Report(
        tuple(_patient(number, group, reader.zone) for number, group in enumerate(reader.patients, 1)),
        tuple(reader.notes),
    )


@dataclass(slots=True)
class _ObservationGroup:
    obx: Segment
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _SpecimenGroup:
    spm: Segment
    follows_results: bool
    observations: list[_ObservationGroup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _OrderGroup:
    orc: Segment | None = None
    obr: Segment | None = None
    observations: list[_ObservationGroup] = field(default_factory=list)
    specimens: list[_SpecimenGroup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _PatientGroup:
    pid: Segment | None = None
    pv1: Segment | None = None
    orders: list[_OrderGroup] = field(default_factory=list)
    observations: list[_ObservationGroup] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Reader:
    """Puts each segment into its group; `_remarks` is where the next NTE belongs."""

    def __init__(self, zone: tzinfo | None) -> None:
        self.zone = zone
        self.patients: list[_PatientGroup] = []
        self.notes: list[str] = []
        self._remarks = self.notes
        self._handlers: dict[str, Callable[[Segment], None]] = {
            "PID": self._pid,
            "PV1": self._pv1,
            "ORC": self._orc,
            "OBR": self._obr,
            "OBX": self._obx,
            "SPM": self._spm,
            "NTE": self._nte,
        }

    def take(self, segment: Segment) -> None:
        handler = self._handlers.get(segment.name)
        if handler is not None:
            handler(segment)

    def _pid(self, segment: Segment) -> None:
        self.patients.append(_PatientGroup(pid=segment))
        self._remarks = self.patients[-1].notes

    def _pv1(self, segment: Segment) -> None:
        self._patient().pv1 = segment

    def _orc(self, segment: Segment) -> None:
        orders = self._patient().orders
        orders.append(_OrderGroup(orc=segment))
        self._remarks = orders[-1].notes

    def _obr(self, segment: Segment) -> None:
        orders = self._patient().orders
        if not orders or orders[-1].obr is not None:
            orders.append(_OrderGroup())
        orders[-1].obr = segment
        self._remarks = orders[-1].notes

    def _obx(self, segment: Segment) -> None:
        group = _ObservationGroup(segment)
        self._observations().append(group)
        self._remarks = group.notes

    def _spm(self, segment: Segment) -> None:
        orders = self._patient().orders
        if not orders:
            orders.append(_OrderGroup())
        orders[-1].specimens.append(_SpecimenGroup(segment, bool(orders[-1].observations)))
        self._remarks = orders[-1].specimens[-1].notes

    def _nte(self, segment: Segment) -> None:
        # NTE-3 repeats for the lines of a remark (v2.5.1, 2.15.10.3).
        self._remarks.append("\n".join(line.text for line in segment.repetitions(3)))

    def _patient(self) -> _PatientGroup:
        if not self.patients:
            self.patients.append(_PatientGroup())
        return self.patients[-1]

    def _observations(self) -> list[_ObservationGroup]:
        patient = self._patient()
        if not patient.orders:
            return patient.observations
        order = patient.orders[-1]
        # After SPM they describe the specimen, unless the sender put SPM before the order's own
        # results: those must not end up where nobody looks for results.
        if order.specimens and order.specimens[-1].follows_results:
            return order.specimens[-1].observations
        return order.observations


def _patient(position: int, group: _PatientGroup, zone: tzinfo | None) -> PatientResult:
    pid = group.pid
    name = _name(pid) if pid else None
    visit = group.pv1.first(19) if group.pv1 else None
    sex = pid.text(8, 1) if pid else ""
    return PatientResult(
        position=position,
        has_patient=pid is not None,
        identifiers=_identifiers(pid) if pid else (),
        # XPN-1 is an FN since v2.3: its first subcomponent is the surname.
        family_name=name.component(1, 1).strip() if name else "",
        given_name=name.component(2).strip() if name else "",
        middle_name=name.component(3).strip() if name else "",
        birth_on=read_timestamp(pid.text(7, 1)).on if pid else None,
        sex=sex,
        visit=read_patient_identifier(visit) if visit else None,
        orders=tuple(_order(number, order, zone) for number, order in enumerate(group.orders, 1)),
        observations=_observations(group.observations, "", zone),
        notes=tuple(group.notes),
    )


def _identifiers(pid: Segment) -> tuple[PatientIdentifier, ...]:
    every = (read_patient_identifier(repetition) for repetition in pid.repetitions(3) if repetition.raw)
    return tuple(identifier for identifier in every if identifier is not None)


def _name(pid: Segment) -> Repetition | None:
    """The first name in PID-5 that has words: `~^^^^^^S~Testova^Anna` begins with a pseudonym's type."""
    return next((name for name in pid.repetitions(5) if name.component(1) or name.component(2)), None)


_NO_SEGMENT = ("",)


def _order(position: int, group: _OrderGroup, zone: tzinfo | None) -> Order:
    given = group.obr or group.orc
    spm = group.specimens[0].spm if group.specimens else None
    known = given or spm
    if known is None:  # an order group is opened by one of the three
        raise AssertionError
    orc = group.orc or Segment(_NO_SEGMENT, known.rules)
    obr = group.obr or Segment(_NO_SEGMENT, known.rules)
    status_code = obr.text(25)
    observations = _observations(group.observations, status_code, zone)
    return Order(
        position=position,
        order_control=orc.text(1),
        # OBR-2/3 and ORC-2/3 are the same numbers (v2.5.1, 7.4.1.2); one of them may be left empty.
        placer=read_entity_identifier(obr.first(2)) or read_entity_identifier(orc.first(2)),
        filler=read_entity_identifier(obr.first(3)) or read_entity_identifier(orc.first(3)),
        parent=read_entity_identifier(obr.first(29).nested(2)),
        service=read_code(obr.first(4)),
        status_code=status_code,
        status=_ORDER_STATUS.get(status_code) or _status_of(observations),
        observed_at=read_timestamp(obr.text(7, 1), zone),
        reported_at=read_timestamp(obr.text(22, 1), zone),
        observations=observations,
        specimens=tuple(_specimen(one, status_code, zone) for one in group.specimens),
        notes=tuple(group.notes),
    )


def _status_of(observations: tuple[Observation, ...]) -> ResultStatus:
    """The status of an order that states none (OBR-25 is required only from v2.5.1's lab profiles on)."""
    statuses = {observation.status for observation in observations}
    if not statuses:
        return ResultStatus.REGISTERED
    return statuses.pop() if len(statuses) == 1 else ResultStatus.PARTIAL


def _specimen(group: _SpecimenGroup, order_status_code: str, zone: tzinfo | None) -> Specimen:
    spm = group.spm
    return Specimen(
        identifier=spm.text(2),
        type=read_code(spm.first(4)),
        collected_at=read_timestamp(spm.text(17, 1), zone),
        received_at=read_timestamp(spm.text(18, 1), zone),
        observations=_observations(group.observations, order_status_code, zone),
        notes=tuple(group.notes),
    )


def _observations(
    groups: list[_ObservationGroup], order_status_code: str, zone: tzinfo | None
) -> tuple[Observation, ...]:
    return tuple(
        _observation(number, group, order_status_code, zone) for number, group in enumerate(groups, 1)
    )


def _observation(
    position: int, group: _ObservationGroup, order_status_code: str, zone: tzinfo | None
) -> Observation:
    obx, value_type, status_code = group.obx, group.obx.text(2), group.obx.text(11)
    values = (one for one in obx.repetitions(5) if one.raw not in ("", NULL))
    return Observation(
        position=position,
        value_type=value_type,
        code=read_code(obx.first(3)),
        sub_id=obx.text(4),
        values=tuple(read_value(value_type, one, zone) for one in values),
        units=read_code(obx.first(6)),
        reference_range=obx.text(7),
        # A plain code up to v2.6, a CWE whose first component is the code since.
        flags=tuple(flag for one in obx.repetitions(8) if (flag := one.component(1).strip())),
        status_code=status_code,
        status=_observation_status(status_code, order_status_code),
        observed_at=read_timestamp(obx.text(14, 1), zone),
        performer=obx.text(23, 1) or obx.text(15, 2),
        notes=tuple(group.notes),
    )


def _observation_status(code: str, order_code: str) -> ResultStatus:
    """An OBX-11 that is empty or unknown follows the order; without that nobody has verified it."""
    status = _OBSERVATION_STATUS.get(code) or _ORDER_STATUS.get(order_code)
    return status or ResultStatus.PRELIMINARY
