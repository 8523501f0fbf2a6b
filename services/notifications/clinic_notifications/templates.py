"""Templates: which wording counts for a message, and changing it. A department's own beats the network's."""

from dataclasses import dataclass
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.database import Transaction
from clinic_shared.errors import PreconditionRequiredError
from clinic_shared.ids import uuid7
from clinic_shared.problems import constraint_of
from sqlalchemy import Row, insert, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import IntegrityError

from clinic_notifications import tables
from clinic_notifications.domain import DEFAULT_LANGUAGE, Channel, Message, Purpose, TemplateVersionTakenError
from clinic_notifications.tables import template
from clinic_notifications.wording import FIELDS, Template, render

LIST_LIMIT = 1000


@dataclass(frozen=True, kw_only=True)
class ChangeTemplate:
    code: Purpose
    language: str
    channel: Channel
    department_id: UUID | None
    subject: str | None
    body: str
    vendor_name: str | None


async def choose(
    tx: Transaction, message: Message, channel: Channel, languages: list[str]
) -> Template | None:
    """Return the wording of the first language that there is, the department's own before the network's."""
    wanted = [*languages, DEFAULT_LANGUAGE]
    found = await _current(
        tx,
        template.c.code == message.purpose.value,
        template.c.channel == channel.value,
        template.c.language.in_(wanted),
        template.c.department_id.is_(None) | (template.c.department_id == message.department_id),
    )
    return min(found, key=lambda t: (wanted.index(t.language), t.department_id is None), default=None)


async def list_templates(
    tx: Transaction,
    *,
    code: str | None,
    language: str | None,
    channel: str | None,
    department_id: UUID | None,
) -> list[Template]:
    """Return the current versions; with a department, its own only."""
    given = {"code": code, "language": language, "channel": channel, "department_id": department_id}
    return await _current(
        tx, *(template.c[name] == value for name, value in given.items() if value is not None)
    )


async def change_template(
    tx: Transaction, command: ChangeTemplate, *, expected_version: int | None
) -> Template:
    """Add the next version of a wording, or the first one of a department.

    Raises TemplateInvalidError, PreconditionRequiredError, PreconditionFailedError.
    """
    current = await _find(tx, command)
    if current is not None and expected_version is None:
        raise PreconditionRequiredError
    tx.require_version(current.version if current else 0, expected_version)
    changed = Template(
        template_id=uuid7(),
        code=command.code.value,
        language=command.language,
        channel=command.channel,
        department_id=command.department_id,
        version=current.version + 1 if current else 1,
        subject=command.subject,
        body=command.body,
        vendor_name=command.vendor_name,
        changed_at=tx.now,
    )
    render(changed, dict.fromkeys(FIELDS, "?"))
    await _add(tx, changed)
    tx.audit(
        AuditEntry(
            action=Action.UPDATE if current else Action.CREATE,
            resource_type="CommunicationTemplate",
            resource_id=changed.template_id,
            details={"code": changed.code, "language": changed.language, "channel": changed.channel.value},
        )
    )
    return changed


async def _add(tx: Transaction, changed: Template) -> None:
    try:
        await tx.execute(insert(template).values(vars(changed) | {"channel": changed.channel.value}))
    except IntegrityError as error:
        if constraint_of(error) == tables.TEMPLATE_VERSION_ONCE:
            raise TemplateVersionTakenError from error
        raise


async def _find(tx: Transaction, command: ChangeTemplate) -> Template | None:
    found = await _current(
        tx,
        template.c.code == command.code.value,
        template.c.language == command.language,
        template.c.channel == command.channel.value,
        template.c.department_id.is_not_distinct_from(command.department_id),
    )
    return found[0] if found else None


async def _current(tx: Transaction, *conditions: object) -> list[Template]:
    key = (template.c.code, template.c.language, template.c.channel, template.c.department_id)
    statement = (
        select(template)
        .ext(distinct_on(*key))
        .where(*conditions)  # type: ignore[arg-type]  # SQL expressions, whatever they compare
        .order_by(*key, template.c.version.desc())
        .limit(LIST_LIMIT)
    )
    return [_template(row) for row in await tx.fetch_all(statement)]


def _template(row: Row[tuple[object, ...]]) -> Template:
    values = row._asdict()
    return Template(**values | {"channel": Channel(row.channel)})
