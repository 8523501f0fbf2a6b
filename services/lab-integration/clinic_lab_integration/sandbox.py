"""Fictitious patients for laboratories that are tried out. Their messages see nobody else, and reach no chart."""

from dataclasses import dataclass
from datetime import date

from clinic_lab_integration.domain import OWN_AUTHORITY, Identifier, ParkReason
from clinic_lab_integration.matching import Group


@dataclass(frozen=True, kw_only=True)
class SandboxPatient:
    """`number` is a patient's number as ours are (authority POLYCLINIC), `order_number` one of an order."""

    number: str
    order_number: str
    family_name: str
    given_name: str
    birth_on: date
    sex: str

    @property
    def identifier(self) -> Identifier:
        return Identifier(OWN_AUTHORITY, self.number)


PATIENTS = (
    SandboxPatient(
        number="SANDBOX-0001",
        order_number="SANDBOX-ORDER-0001",
        family_name="Testova",
        given_name="Anna",
        birth_on=date(1990, 1, 2),
        sex="F",
    ),
    SandboxPatient(
        number="SANDBOX-0002",
        order_number="SANDBOX-ORDER-0002",
        family_name="Testov",
        given_name="Pyotr",
        birth_on=date(1985, 3, 4),
        sex="M",
    ),
    SandboxPatient(
        number="SANDBOX-0003",
        order_number="SANDBOX-ORDER-0003",
        family_name="Примерова",
        given_name="Вера",
        birth_on=date(2019, 5, 6),
        sex="F",
    ),
)


def whose(group: Group) -> SandboxPatient | ParkReason:
    """Match a group as a real one is matched: by our order numbers and by identifiers, and both must agree."""
    ordered = {patient for patient in PATIENTS if patient.order_number in group.order_numbers}
    identified = {patient for patient in PATIENTS if patient.identifier in group.identifiers}
    if len(ordered) > 1 or len(identified) > 1:
        return ParkReason.SEVERAL_PATIENTS
    if ordered and identified and ordered != identified:
        return ParkReason.ORDER_OF_ANOTHER_PATIENT
    return next(iter(ordered or identified), ParkReason.UNMATCHED)
