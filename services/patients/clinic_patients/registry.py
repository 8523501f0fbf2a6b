"""Registering people, changing what is known of them, finding them again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import ForbiddenError, InvalidRequestError, NotFoundError, ReferenceNotYetKnownError
from clinic_shared.folding import name_words
from clinic_shared.ids import uuid7
from clinic_shared.paging import InvalidCursorError
from clinic_shared.policy import Decision
from clinic_shared.principal import Principal

from clinic_patients import care, search_store, store
from clinic_patients.domain import (
    AuthorityReservedError,
    Identifier,
    IdentifierTakenError,
    Patient,
    PatientId,
    PatientStatus,
    PersonName,
    PhoneNotValidError,
    Sex,
    check_birth,
    record_number,
)
from clinic_patients.events import patient_event
from clinic_patients.merge_domain import refuse_replaced
from clinic_patients.names import birth_term, identifier_term, phone_term, words_to_match
from clinic_patients.phones import NotAPhoneError, to_e164
from clinic_patients.search_store import TermRange
from clinic_patients.settings import PatientsSettings, RegistrySettings

REGISTRAR_SCOPE = "patients.register"
SEARCH_SCOPE = "patients.search"
READ_SCOPE = "patients.read"
RECORD_NUMBER_TYPE = "MR"  # HL7 table 0203


@dataclass(frozen=True, kw_only=True)
class Demographics:
    """What people say about themselves; phones as they write them."""

    name: PersonName
    birth_on: date | None
    sex: Sex
    phones: tuple[str, ...]
    emails: tuple[str, ...]
    language: str | None
    identifiers: tuple[Identifier, ...]


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """What a search asks for; everything given must match. Names match by the beginnings of words."""

    name: str | None = None
    phone: str | None = None
    birth_on: date | None = None
    identifier: tuple[str, str] | None = None


async def register_patient(
    tx: Transaction,
    demographics: Demographics,
    *,
    centre_id: UUID,
    caller: Principal,
    settings: PatientsSettings,
) -> Patient:
    """Register a person and give them a record number. Raises IdentifierTakenError with all conflicts."""
    await _require_centre(tx, centre_id, caller)
    check_birth(demographics.birth_on, now=tx.now)
    if any(i.authority == settings.mrn_authority for i in demographics.identifiers):
        raise AuthorityReservedError(authority=settings.mrn_authority)
    own_number = await _own_number(tx, settings)
    patient = Patient(
        patient_id=PatientId(uuid7()),
        version=1,
        status=PatientStatus.ACTIVE,
        centre_id=centre_id,
        name=demographics.name,
        birth_on=demographics.birth_on,
        sex=demographics.sex,
        phones=_e164(demographics.phones, settings),
        emails=demographics.emails,
        language=demographics.language,
        identifiers=(own_number, *demographics.identifiers),
        registered_at=tx.now,
        updated_at=tx.now,
    )
    _refuse_taken(demographics.identifiers, await store.add_patient(tx, patient))
    tx.emit(patient_event("patient-registered", patient))
    _audit(tx, Action.CREATE, patient)
    return patient


async def _own_number(tx: Transaction, settings: RegistrySettings) -> Identifier:
    return Identifier(
        authority=settings.mrn_authority,
        type=RECORD_NUMBER_TYPE,
        value=record_number(await store.next_record_number(tx)),
    )


async def register_requested(
    tx: Transaction,
    patient_id: UUID,
    demographics: Demographics,
    *,
    centre_id: UUID | None,
    settings: RegistrySettings,
) -> None:
    """Register somebody under an id that results are attached to already. Asked again, it changes nothing.

    Whoever asked has ruled duplicates out with what they knew. An identifier that another patient has all the
    same is left to them: the results are somewhere, and two records that are one can be merged.
    """
    if await store.lock_patient(tx, patient_id) is not None:
        return
    wanted = [i for i in demographics.identifiers if i.authority != settings.mrn_authority]
    taken = await store.taken_identifiers(tx, wanted)
    own_number = await _own_number(tx, settings)
    free = tuple(i for i in wanted if i.key not in taken)
    patient = Patient(
        patient_id=PatientId(patient_id),
        version=1,
        status=PatientStatus.ACTIVE,
        centre_id=centre_id,
        name=demographics.name,
        birth_on=demographics.birth_on,
        sex=demographics.sex,
        phones=(),
        emails=(),
        language=None,
        identifiers=(own_number, *free),
        registered_at=tx.now,
        updated_at=tx.now,
    )
    await store.keep_stub(tx, patient_id)
    _refuse_taken(free, await store.save_patient(tx, patient))
    tx.emit(patient_event("patient-registered", patient))
    _audit(tx, Action.CREATE, patient)


async def change_patient(
    tx: Transaction,
    patient_id: UUID,
    demographics: Demographics,
    *,
    status: PatientStatus,
    expected_version: int,
    caller: Principal,
    settings: PatientsSettings,
) -> Patient:
    """Replace what is known of a patient; saying the same again changes nothing.

    Only the registry changes who somebody is; the patient and the doctor change how to reach them.
    """
    decision = await care.permit(tx, patient_id, "patients.update", caller=caller)
    old = await store.lock_patient(tx, patient_id)
    if old is None:
        raise NotFoundError
    refuse_replaced(old)
    tx.require_version(old.version, expected_version)
    check_birth(demographics.birth_on, now=tx.now)
    changed = replace(
        old,
        status=status,
        name=demographics.name,
        birth_on=demographics.birth_on,
        sex=demographics.sex,
        phones=_e164(demographics.phones, settings),
        emails=demographics.emails,
        language=demographics.language,
        identifiers=_keep_own_number(old, demographics.identifiers, settings),
    )
    if changed == old:
        return old
    if not caller.may(REGISTRAR_SCOPE) and not changed.differs_only_in_contacts(old):
        raise ForbiddenError("Only the registry changes names, dates, identifiers and status.")
    patient = old.succeeded_by(changed, now=tx.now)
    _refuse_taken(demographics.identifiers, await store.save_patient(tx, patient))
    tx.emit(patient_event("patient-updated", patient))
    _audit(tx, Action.UPDATE, patient, why=decision)
    return patient


async def read_patient(
    tx: Transaction, patient_id: UUID, *, caller: Principal, permission: str = READ_SCOPE
) -> Patient:
    decision = await care.permit(tx, patient_id, permission, caller=caller)
    patient = await store.find_patient(tx, patient_id)
    if patient is None:
        raise NotFoundError
    _audit(tx, Action.READ, patient, why=decision)
    return patient


async def search_patients(
    tx: Transaction,
    criteria: Criteria,
    *,
    caller: Principal,
    after: UUID | None,
    limit: int,
    settings: PatientsSettings,
) -> list[Patient]:
    """Return up to `limit` of the caller's patients, and one more where there is one, which isn't disclosed.

    Raises InvalidCursorError when the patient that the cursor stands at no longer matches.
    """
    ranges = _ranges(criteria, settings)
    if not ranges:
        raise InvalidRequestError("Name at least one thing to search by.")
    visible = await care.visible_to(tx, SEARCH_SCOPE, caller=caller)
    found = await search_store.search_patients(tx, ranges, visible=visible, after=after, limit=limit + 1)
    if found is None:
        raise InvalidCursorError("The list has changed at the cursor: start again.")
    disclosed: dict[UUID, UUID | None] = {p.patient_id: p.centre_id for p in found[:limit]}
    reasons = await care.explain(tx, disclosed, SEARCH_SCOPE, caller=caller)
    for patient in found[:limit]:
        _audit(tx, Action.READ, patient, found_by=criteria, why=reasons[patient.patient_id])
    return found


def _ranges(criteria: Criteria, settings: PatientsSettings) -> list[TermRange]:
    """Return what to look for, the rarest first: it drives the search."""
    ranges: list[TermRange] = []
    if criteria.identifier is not None:
        ranges.append(TermRange(identifier_term(*criteria.identifier)))
    if criteria.phone is not None:
        ranges += [TermRange(phone_term(phone)) for phone in _e164((criteria.phone,), settings)]
    if criteria.birth_on is not None:
        ranges.append(TermRange(birth_term(criteria.birth_on)))
    if criteria.name is not None:
        words = words_to_match(name_words(criteria.name))
        longest_first = sorted(words, key=lambda word: -len(word[0]))
        ranges += [TermRange(word, prefix=True, at_least=count) for word, count in longest_first]
    return ranges


def _e164(phones: Iterable[str], settings: PatientsSettings) -> tuple[str, ...]:
    numbers: dict[str, None] = {}
    for position, phone in enumerate(phones):
        try:
            numbers[to_e164(phone, region=settings.default_phone_region)] = None
        except NotAPhoneError:
            raise PhoneNotValidError(pointer=f"/phones/{position}") from None
    return tuple(numbers)


def _keep_own_number(
    old: Patient, identifiers: Sequence[Identifier], settings: PatientsSettings
) -> tuple[Identifier, ...]:
    """Return the new identifiers behind the network's own, which may be repeated but not changed."""
    own = [i for i in old.identifiers if i.authority == settings.mrn_authority]
    others = [i for i in identifiers if i.authority != settings.mrn_authority]
    repeated = {i.key for i in identifiers if i.authority == settings.mrn_authority}
    if not repeated <= {i.key for i in own}:
        raise AuthorityReservedError(authority=settings.mrn_authority)
    return (*own, *others)


def _refuse_taken(asked: Sequence[Identifier], taken: Sequence[Identifier]) -> None:
    """Tell which of the request's identifiers are taken, by place and authority: values are personal."""
    if not taken:
        return
    positions = {identifier.key: position for position, identifier in enumerate(asked)}
    raise IdentifierTakenError(
        conflicts=[
            {"pointer": f"/identifiers/{positions.get(i.key, '-')}", "authority": i.authority} for i in taken
        ]
    )


async def _require_centre(tx: Transaction, centre_id: UUID, caller: Principal) -> None:
    if not await store.is_centre_known(tx, centre_id):
        raise ReferenceNotYetKnownError("The centre is not known here yet.", reference="centre_id")
    if not await store.has_department(tx, centre_id, caller.department_ids):
        caller.require_place(centre_id=centre_id)


def _audit(
    tx: Transaction,
    action: Action,
    patient: Patient,
    *,
    found_by: Criteria | None = None,
    why: Decision | None = None,
) -> None:
    criteria = [name for name, value in vars(found_by).items() if value is not None] if found_by else []
    details = {"searched_by": " ".join(criteria)} if criteria else {}
    tx.audit(
        AuditEntry(
            action=action,
            resource_type="Patient",
            resource_id=patient.patient_id,
            patient_id=patient.patient_id,
            details=details | (why.explained() if why else {}),
        )
    )
