"""HTTP in: patients' logins, as staff manage them."""

from typing import Annotated, Self
from uuid import UUID

from clinic_shared.routing import ClinicRouter, Idempotency, Tx
from fastapi import Response
from pydantic import ConfigDict, Field

from clinic_identity import accounts, fields
from clinic_identity.fields import CurrentDesk, Login
from clinic_identity.link_models import (
    AccessLinkRequest,
    AccessLinkResponse,
    SentLinkResponse,
    wants_message,
)
from clinic_identity.staff_api import InitialPassword

router = ClinicRouter(tags=["identity"])


class PatientLoginRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"patient_id": "01900000-0000-7000-8000-a00000000001", "login": "+70000000001"}]
        },
    )

    patient_id: UUID
    login: Annotated[Login, Field(description="E-mail address, or phone number in E.164 form")]


class PatientLoginResponse(InitialPassword):
    account_id: UUID
    patient_id: UUID | None
    login: str

    @classmethod
    def of(cls, invitation: accounts.Invitation) -> Self:
        account = invitation.account
        return cls(
            account_id=account.account_id,
            patient_id=account.patient_id,
            login=account.login,
            initial_password=invitation.initial_password,
            initial_password_expires_at=account.password_expires_at,
        )


@router.post(
    "/v1/users/patients",
    permission="patient-logins.manage",
    idempotency=Idempotency.NONE,
    status_code=201,
    operation_id="invitePatient",
)
async def invite_patient(tx: Tx, desk: CurrentDesk, body: PatientLoginRequest) -> PatientLoginResponse:
    """Give a patient a login. Hand over the initial password: it is shown once and works for 72 hours."""
    return PatientLoginResponse.of(await accounts.invite_patient(tx, desk, body.patient_id, body.login))


@router.post(
    "/v1/users/patients/{patient_id}/initial-password",
    permission="patient-logins.manage",
    idempotency=Idempotency.NONE,
    operation_id="renewPatientPassword",
)
async def renew_patient_password(tx: Tx, desk: CurrentDesk, patient_id: UUID) -> PatientLoginResponse:
    """Replace a forgotten password by an initial one. All the patient's sessions end."""
    return PatientLoginResponse.of(await accounts.renew_patients_password(tx, desk, patient_id))


@router.post(
    "/v1/users/patients/{patient_id}/access-link",
    permission="patient-logins.manage",
    idempotency=Idempotency.NONE,
    operation_id="makePatientAccessLink",
)
async def make_patient_access_link(
    tx: Tx, desk: CurrentDesk, patient_id: UUID, body: AccessLinkRequest | None = None
) -> AccessLinkResponse:
    """Make a link with which the patient chooses their password, or have it sent. Earlier ones stop working."""
    send = wants_message(body)
    return AccessLinkResponse.of(await accounts.link_for_patient(tx, desk, patient_id, send=send))


@router.get(
    "/v1/users/patients/{patient_id}/access-link",
    permission="patient-logins.manage",
    operation_id="getPatientAccessLink",
)
async def get_patient_access_link(tx: Tx, patient_id: UUID) -> SentLinkResponse:
    """Say how far the link got that is being sent to the patient; 404 once it was used or replaced."""
    return SentLinkResponse.model_validate(await accounts.sent_link_of_patient(tx, patient_id))


@router.post(
    "/v1/users/patients/{patient_id}/deactivate",
    permission="patient-logins.manage",
    status_code=204,
    operation_id="deactivatePatientLogin",
)
async def deactivate_patient_login(tx: Tx, patient_id: UUID) -> Response:
    """Take the patient's login away; their sessions end now."""
    await accounts.deactivate_patients_login(tx, patient_id)
    return Response(status_code=204)
