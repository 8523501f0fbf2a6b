"""Who viewed my record: the log as a patient reads it, and as the privacy officer accounts for disclosures.

Of staff it shows roles and an id, no names: whoever looked answers to the clinic, which the patient can ask.
"""

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from clinic_shared.audit import Action, AuditEntry
from clinic_shared.routing import Caller, ClinicRouter, Page, PageQuery, Tx, page_of
from fastapi import Query
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import Row

from clinic_audit import search
from clinic_audit.search import Wanted

router = ClinicRouter(tags=["audit"])

_SUCCESS = "0"


class Access(BaseModel):
    """One act on a patient's record, or a refused one."""

    leaf_index: Annotated[
        int, Field(description="place in the audit log, which proves that nothing was removed")
    ]
    at: datetime
    who: UUID
    kind: Annotated[str, Field(description="staff, patient, client (a laboratory, an app) or system")]
    roles: list[str]
    action: Annotated[str, Field(description="FHIR AuditEvent.action: C, R, U, D or E")]
    what: Annotated[str, Field(description="type of what was looked at or changed")]
    service: str
    purpose: str | None
    reason: str | None
    emergency: Annotated[bool, Field(description="emergency access (break-glass), which is reviewed")]
    refused: bool
    request_id: UUID | None

    @classmethod
    def of(cls, row: Row[Any]) -> "Access":
        record = json.loads(row.record)
        purpose = record.get("purpose")
        return cls(
            leaf_index=row.leaf_index,
            at=row.recorded_at,
            who=row.agent,
            kind=record["agent"]["kind"],
            roles=record["agent"]["roles"],
            action=row.action,
            what=row.entity_type,
            service=row.producer,
            purpose=purpose,
            reason=record["reason"],
            emergency=purpose == "BTG" or "break_glass" in record["details"],
            refused=row.outcome != _SUCCESS,
            request_id=record["request"],
        )


@router.get(
    "/v1/patients/{patient_id}/access-log", permission="access-log.read", operation_id="listPatientAccesses"
)
async def list_accesses(
    tx: Tx,
    caller: Caller,
    page: PageQuery,
    patient_id: UUID,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    *,
    disclosures: Annotated[
        bool, Query(description="only what went to parties outside the network (45 CFR 164.528)")
    ] = False,
) -> Page[Access]:
    """List who looked at or changed a patient's record, the newest first. Patients see their own.

    Of records that were merged it is one list, under the id of either.

    Acts of the platform itself are left out. Reading the list is recorded too.
    """
    caller.require_patient(patient_id)
    key = page.after_key(int)
    wanted = Wanted(
        person=await search.person_of(tx, patient_id),
        since=since,
        until=until,
        outside_only=disclosures,
        of_people_only=True,
    )
    rows = await search.find(
        tx, wanted, after=key[0] if key else None, limit=page.limit + 1, newest_first=True
    )
    tx.audit(AuditEntry(action=Action.READ, resource_type="AccessLog", patient_id=patient_id))
    return page_of([Access.of(row) for row in rows], page, key=lambda access: access.leaf_index)
