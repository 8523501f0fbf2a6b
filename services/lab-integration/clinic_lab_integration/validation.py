"""What would become of a message, in full, without keeping anything of it: for whoever builds an interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from clinic_shared.database import Transaction

from clinic_lab_integration import code_maps, fhir, matching, reports, sandbox
from clinic_lab_integration.domain import ParkReason
from clinic_lab_integration.fhir import AssessedBundle, Issue
from clinic_lab_integration.hl7 import AssessedMessage, Disposition, Finding
from clinic_lab_integration.hl7.review import review
from clinic_lab_integration.matching import Group
from clinic_lab_integration.meaning import SourceCode
from clinic_lab_integration.partners import zone_of
from clinic_lab_integration.reports import Content
from clinic_lab_integration.sandbox import SandboxPatient
from clinic_lab_integration.store import Partner

_NO_MESSAGE = UUID(int=0)
"""Stands for the id that a message would get."""


@dataclass(frozen=True, kw_only=True)
class ValidGroup:
    """A patient group, as it would be read and matched."""

    group: Group
    whose: UUID | SandboxPatient | ParkReason


@dataclass(frozen=True, kw_only=True)
class Validated:
    """`findings` are those that the answer follows from, and then what should be corrected besides."""

    message: AssessedMessage
    answer: bytes | None
    findings: tuple[Finding, ...]
    groups: tuple[ValidGroup, ...]
    unmapped: Mapping[SourceCode, str | None]


async def validate(tx: Transaction, partner: Partner, messages: Sequence[AssessedMessage]) -> list[Validated]:
    return [await _validate(tx, partner, message) for message in messages]


async def _validate(tx: Transaction, partner: Partner, message: AssessedMessage) -> Validated:
    groups: list[Group] = []
    if message.disposition is Disposition.ACCEPTED:
        content = reports.read(message, zone_of(partner))
        groups = matching.groups_of(content, partner, message_id=_NO_MESSAGE)
    warnings = review(message.message) if message.message is not None else ()
    return Validated(
        message=message,
        answer=message.answer(at=tx.now),
        findings=(*message.findings, *warnings),
        groups=await _matched(tx, partner, groups),
        unmapped=await _unmapped(tx, partner, groups),
    )


@dataclass(frozen=True, kw_only=True)
class ValidatedBundle:
    """`bundle` is None for a body that is none. `answer` goes out with the HTTP `status`."""

    bundle: AssessedBundle | None
    status: int
    answer: bytes
    issues: tuple[Issue, ...]
    groups: tuple[ValidGroup, ...] = ()
    unmapped: Mapping[SourceCode, str | None] = field(default_factory=dict)


async def validate_bundle(tx: Transaction, partner: Partner, bundle: AssessedBundle) -> ValidatedBundle:
    content = Content(report=bundle.report, sent_at=bundle.sent_at)
    groups = matching.groups_of(content, partner, message_id=_NO_MESSAGE)
    answer = fhir.answer(bundle, _NO_MESSAGE)
    return ValidatedBundle(
        bundle=bundle,
        status=fhir.status_of(answer),
        answer=answer,
        issues=bundle.issues,
        groups=await _matched(tx, partner, groups),
        unmapped=await _unmapped(tx, partner, groups),
    )


async def _matched(tx: Transaction, partner: Partner, groups: Sequence[Group]) -> tuple[ValidGroup, ...]:
    return tuple([ValidGroup(group=g, whose=await _whose(tx, partner, g)) for g in groups])


async def _unmapped(
    tx: Transaction, partner: Partner, groups: Sequence[Group]
) -> Mapping[SourceCode, str | None]:
    sent = [report for group in groups for report in group.reports]
    return await code_maps.unmapped(tx, partner.partner_id, sent) if sent else {}


async def _whose(tx: Transaction, partner: Partner, group: Group) -> UUID | SandboxPatient | ParkReason:
    if partner.connection.test_mode:
        return sandbox.whose(group)
    return (await matching.match_group(tx, partner.partner_id, group)).whose
