"""Who works here and who is a patient, as detection knows them: names as blind indexes, nothing to be read."""

import re
from collections.abc import Collection
from uuid import UUID

from clinic_shared.database import Transaction
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.folding import name_words
from clinic_shared.projections import keep_newer
from pydantic import BaseModel
from sqlalchemy import Row, exists, select

from clinic_audit.detection import Name, People
from clinic_audit.detection_tables import known_patient, known_staff, watched_patient

_FEMININE = ((re.compile(r"(ов|ев|ин)а$"), r"\1"), (re.compile(r"(с|ц)кая$"), r"\1кии"))


class PersonName(BaseModel):
    family: str | None = None
    given: str | None = None
    patronymic: str | None = None


def family_of(name: PersonName) -> str | None:
    """Return the family name as relatives share it: a wife's and a husband's are one."""
    family = " ".join(name_words(name.family or ""))
    for ending, common in _FEMININE:
        family = ending.sub(common, family)
    return family.replace("й", "и") or None


def _full(name: PersonName) -> str | None:
    words = [name_words(part) for part in (name.family or "", name.given or "", name.patronymic or "")]
    # A family name alone is shared by too many to be somebody.
    return " ".join(word for part in words for word in part) if words[0] and words[1] else None


def _blind(keyring: Keyring, purpose: str, text: str | None) -> bytes | None:
    return None if text is None else keyring.blind(purpose, text)


def _names(tx: Transaction, name: PersonName | None) -> dict[str, bytes | None]:
    known = name or PersonName()
    return {
        "family": _blind(tx.keyring, "family", family_of(known)),
        "full_name": _blind(tx.keyring, "full-name", _full(known)),
    }


async def keep_staff(
    tx: Transaction, staff_id: UUID, version: int, name: PersonName | None, *, active: bool
) -> None:
    names = _names(tx, name)
    await keep_newer(tx, known_staff, {"staff_id": staff_id, "version": version, "active": active, **names})


async def keep_patient(tx: Transaction, patient_id: UUID, version: int, name: PersonName | None) -> None:
    await keep_newer(tx, known_patient, {"patient_id": patient_id, "version": version, **_names(tx, name)})


async def find_people(tx: Transaction, agents: Collection[UUID], patients: Collection[UUID]) -> People:
    """Return what is known of those whom some acts concern."""
    staff = await tx.fetch_all(select(known_staff).where(known_staff.c.staff_id.in_(agents)))
    works_here = exists().where(
        known_staff.c.full_name == known_patient.c.full_name, known_staff.c.active.is_(True)
    )
    known = await tx.fetch_all(
        select(known_patient, works_here.label("works_here")).where(known_patient.c.patient_id.in_(patients))
    )
    watched = await tx.fetch_all(
        select(watched_patient.c.patient_id).where(watched_patient.c.patient_id.in_(patients))
    )
    return People(
        staff={row.staff_id: _name(row) for row in staff},
        patients={row.patient_id: _name(row) for row in known},
        colleagues=frozenset(row.patient_id for row in known if row.works_here),
        watched=frozenset(row.patient_id for row in watched),
    )


def _name(row: Row[tuple[object, ...]]) -> Name:
    return Name(family=_hex(row.family), full=_hex(row.full_name))


def _hex(value: bytes | None) -> str | None:
    return None if value is None else bytes(value).hex()
