"""HTTP in: second factors, the second step of a login, step-up, and resets by two people."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from clinic_shared.errors import UnauthenticatedError
from clinic_shared.routing import (
    AUTHENTICATED,
    PUBLIC,
    Caller,
    ClinicRouter,
    CurrentContext,
    Idempotency,
    Tx,
)
from clinic_shared.step_up import RECENT_AUTHENTICATION
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from clinic_identity import (
    authentication,
    code_store,
    enrolment,
    factor_store,
    fields,
    second_step,
    session_store,
)
from clinic_identity.auth_api import TokenResponse
from clinic_identity.factors import FactorKind, FactorReset, Method, SecondFactor
from clinic_identity.fields import CurrentDesk, CurrentVisit, Label
from clinic_identity.passkeys import MAX_CREDENTIAL_BYTES
from clinic_identity.second_step import Shown
from clinic_identity.sessions import AccessToken

router = ClinicRouter(tags=["identity"])

Ticket = Annotated[str, Field(min_length=1, max_length=128, description="From the login's answer")]
Code = Annotated[str, Field(pattern=r"^[0-9]{6}$", description="What the app shows", examples=["123456"])]
RecoveryCode = Annotated[str, Field(min_length=1, max_length=64)]
Credential = Annotated[
    dict[str, Any],
    Field(max_length=16, description="The browser's PublicKeyCredential as JSON (WebAuthn 3, 5.1)"),
]
_EXAMPLE_CREDENTIAL: Any = {"id": "fictitious", "rawId": "fictitious", "type": "public-key", "response": {}}

# -- the second step of a login


class TicketRequest(fields.Request):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ticket": "st_fictitious"}]})

    ticket: Ticket


class TotpLoginRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"ticket": "st_fictitious", "code": "123456"}]}
    )

    ticket: Ticket
    code: Code


class RecoveryLoginRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"ticket": "st_fictitious", "code": "ABCD-EFGH-JKLM-NPQR-STUV-WXYZ"}]
        },
    )

    ticket: Ticket
    code: RecoveryCode


class PasskeyLoginRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"ticket": "st_fictitious", "credential": _EXAMPLE_CREDENTIAL}]},
    )

    ticket: Ticket
    credential: Credential


@router.post("/v1/auth/mfa/totp", permission=PUBLIC, transactional=False, operation_id="logInWithTotp")
async def log_in_with_totp(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: TotpLoginRequest
) -> TokenResponse:
    """Finish a login with an authenticator app's code. Each code counts once."""
    shown = Shown(method=Method.TOTP, code=body.code)
    return await _finish(desk, context, visit, body.ticket, shown)


@router.post(
    "/v1/auth/mfa/recovery-code", permission=PUBLIC, transactional=False, operation_id="logInWithRecoveryCode"
)
async def log_in_with_recovery_code(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: RecoveryLoginRequest
) -> TokenResponse:
    """Finish a login with one of the recovery codes, which is used up by it."""
    shown = Shown(method=Method.RECOVERY_CODE, code=body.code)
    return await _finish(desk, context, visit, body.ticket, shown)


@router.post("/v1/auth/mfa/passkey/options", permission=PUBLIC, operation_id="getPasskeyLoginOptions")
async def get_passkey_login_options(tx: Tx, desk: CurrentDesk, body: TicketRequest) -> dict[str, Any]:
    """Return what the page hands to `navigator.credentials.get`; works once, for five minutes."""
    options: dict[str, Any] = await second_step.passkey_options(tx, desk, body.ticket)
    return options


@router.post(
    "/v1/auth/mfa/passkey",
    permission=PUBLIC,
    transactional=False,
    max_body_bytes=MAX_CREDENTIAL_BYTES,
    operation_id="logInWithPasskey",
)
async def log_in_with_passkey(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: PasskeyLoginRequest
) -> TokenResponse:
    """Finish a login with a passkey or hardware key."""
    shown = Shown(method=Method.PASSKEY, credential=body.credential)
    return await _finish(desk, context, visit, body.ticket, shown)


async def _finish(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, ticket: str, shown: Shown
) -> TokenResponse:
    tokens = await authentication.log_in_with_second_factor(
        desk, context, ticket=ticket, shown=shown, visit=visit
    )
    return TokenResponse.of(tokens)


# -- step-up


class ProofRequest(fields.Request):
    method: Method
    code: Annotated[str, Field(max_length=64)] = ""
    credential: Credential | None = None

    def shown(self) -> Shown:
        return Shown(method=self.method, code=self.code, credential=self.credential)


class StepUpRequest(ProofRequest):
    """A code by SMS is no proof that opens what is sensitive."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"method": "totp", "code": "123456"}]}
    )

    method: Literal[Method.TOTP, Method.PASSKEY, Method.RECOVERY_CODE]


class AccessTokenResponse(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # RFC 6750
    expires_in: Annotated[int, Field(description="Seconds")]

    @classmethod
    def of(cls, token: AccessToken) -> Self:
        return cls(access_token=token.access_token, expires_in=token.expires_in_seconds)


@router.post(
    "/v1/auth/step-up",
    permission=AUTHENTICATED,
    transactional=False,
    max_body_bytes=MAX_CREDENTIAL_BYTES,
    operation_id="stepUp",
)
async def step_up(desk: CurrentDesk, context: CurrentContext, body: StepUpRequest) -> AccessTokenResponse:
    """Show once more that it is you, with a second factor (RFC 9470). The new token opens what is sensitive."""
    return AccessTokenResponse.of(await second_step.step_up(desk, context, body.shown()))


@router.post(
    "/v1/auth/step-up/passkey/options",
    permission=AUTHENTICATED,
    idempotency=Idempotency.NONE,
    operation_id="getStepUpOptions",
)
async def get_step_up_options(tx: Tx, desk: CurrentDesk, caller: Caller) -> dict[str, Any]:
    """Return what the page hands to `navigator.credentials.get` before a step-up."""
    session = await session_store.find_session(tx, caller.session_id) if caller.session_id else None
    if session is None:
        raise UnauthenticatedError("The session has ended.")
    options: dict[str, Any] = await second_step.step_up_options(tx, desk, session)
    return options


# -- one's own factors


class FactorResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    factor_id: UUID
    kind: FactorKind
    label: str
    created_at: datetime
    last_used_at: datetime | None

    @classmethod
    def of(cls, factor: SecondFactor) -> Self:
        return cls.model_validate(factor)


class FactorsResponse(BaseModel):
    factors: list[FactorResponse]
    recovery_codes_left: int
    sms: Annotated[
        bool, Field(description="Patients' logins ask for a code by SMS, while there is no factor")
    ] = False


class NewTotpResponse(BaseModel):
    factor_id: UUID
    secret: Annotated[str, Field(description="For typing into an app; shown this once")]
    uri: Annotated[str, Field(description="For a QR code")]


class AddedFactorResponse(BaseModel):
    factor: FactorResponse
    recovery_codes: Annotated[
        list[str], Field(description="With the first factor: print them, they are shown this once")
    ]

    @classmethod
    def of(cls, added: enrolment.Added) -> Self:
        return cls(factor=FactorResponse.of(added.factor), recovery_codes=added.recovery_codes)


class LabelRequest(fields.Request):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"label": "My phone"}]})

    label: Label


class CodeRequest(fields.Request):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"code": "123456"}]})

    code: Code


class PasskeyRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"label": "My key", "credential": _EXAMPLE_CREDENTIAL}]},
    )

    label: Label
    credential: Credential


class RecoveryCodesResponse(BaseModel):
    recovery_codes: list[str]


@router.get("/v1/me/mfa", permission="profile.read", operation_id="listOwnFactors")
async def list_own_factors(tx: Tx, caller: Caller) -> FactorsResponse:
    """List one's own second factors, and how many recovery codes are left."""
    found = await factor_store.list_factors(tx, caller.subject)
    left = await factor_store.count_recovery_codes(tx, caller.subject)
    number = await code_store.find_number(tx, caller.subject)
    return FactorsResponse(
        factors=[FactorResponse.of(one) for one in found],
        recovery_codes_left=left,
        sms=number is not None,
    )


# Answers with secrets are never kept for repeats.
@router.post(
    "/v1/me/mfa/totp",
    permission="profile.read",
    idempotency=Idempotency.NONE,
    status_code=201,
    operation_id="beginTotp",
)
async def begin_totp(tx: Tx, desk: CurrentDesk, caller: Caller, body: LabelRequest) -> NewTotpResponse:
    """Begin to add an authenticator app. It counts once a code of it has been confirmed."""
    made = await enrolment.begin_totp(tx, desk, caller, body.label)
    return NewTotpResponse(factor_id=made.factor_id, secret=made.secret, uri=made.uri)


@router.post(
    "/v1/me/mfa/totp/{factor_id}/confirm",
    permission="profile.read",
    idempotency=Idempotency.NONE,
    operation_id="confirmTotp",
)
async def confirm_totp(
    tx: Tx, desk: CurrentDesk, caller: Caller, factor_id: UUID, body: CodeRequest
) -> AddedFactorResponse:
    """Show that the app has the secret. All other sessions end; refresh this one for full rights."""
    return AddedFactorResponse.of(await enrolment.confirm_totp(tx, desk, caller, factor_id, body.code))


@router.post(
    "/v1/me/mfa/passkeys/options",
    permission="profile.read",
    idempotency=Idempotency.NONE,
    operation_id="beginPasskey",
)
async def begin_passkey(tx: Tx, desk: CurrentDesk, caller: Caller) -> dict[str, Any]:
    """Return what the page hands to `navigator.credentials.create`; works once, for five minutes."""
    options: dict[str, Any] = await enrolment.begin_passkey(tx, desk, caller)
    return options


@router.post(
    "/v1/me/mfa/passkeys",
    permission="profile.read",
    idempotency=Idempotency.NONE,
    max_body_bytes=MAX_CREDENTIAL_BYTES,
    status_code=201,
    operation_id="addPasskey",
)
async def add_passkey(tx: Tx, desk: CurrentDesk, caller: Caller, body: PasskeyRequest) -> AddedFactorResponse:
    """Add a passkey or hardware key. All other sessions end; refresh this one for full rights."""
    return AddedFactorResponse.of(await enrolment.add_passkey(tx, desk, caller, body.label, body.credential))


@router.delete(
    "/v1/me/mfa/{factor_id}", permission="profile.read", status_code=204, operation_id="removeFactor"
)
async def remove_factor(tx: Tx, desk: CurrentDesk, caller: Caller, factor_id: UUID) -> Response:
    """Remove a second factor. All other sessions end."""
    await enrolment.remove_factor(tx, desk, caller, factor_id)
    return Response(status_code=204)


@router.post(
    "/v1/me/mfa/recovery-codes",
    permission="profile.read",
    idempotency=Idempotency.NONE,
    operation_id="renewRecoveryCodes",
)
async def renew_recovery_codes(tx: Tx, caller: Caller) -> RecoveryCodesResponse:
    """Make new recovery codes, shown this once. Those before are void."""
    return RecoveryCodesResponse(recovery_codes=await enrolment.renew_recovery_codes(tx, caller))


# -- lost factors


class ResetRequest(fields.Request):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "Lost the phone, seen in person"}]}
    )

    reason: Annotated[str, Field(min_length=10, max_length=500)]


class DecisionRequest(fields.Request):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"approve": True}]})

    approve: bool


class ResetResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    reset_id: UUID
    account_id: UUID
    reason: str
    requested_by: UUID
    requested_at: datetime
    expires_at: datetime
    decision: Literal["approved", "rejected"] | None
    decided_by: UUID | None
    decided_at: datetime | None

    @classmethod
    def of(cls, reset: FactorReset) -> Self:
        return cls.model_validate(reset)


@router.post(
    "/v1/users/{account_id}/factor-resets",
    permission="second-factors.reset",
    status_code=201,
    dependencies=RECENT_AUTHENTICATION,
    operation_id="askForFactorReset",
)
async def ask_for_factor_reset(tx: Tx, caller: Caller, account_id: UUID, body: ResetRequest) -> ResetResponse:
    """Ask that somebody who lost their second factors may add new ones. A second person decides."""
    return ResetResponse.of(await enrolment.ask_for_reset(tx, caller, account_id, body.reason))


@router.get("/v1/users/factor-resets", permission="second-factors.reset", operation_id="listFactorResets")
async def list_factor_resets(tx: Tx) -> list[ResetResponse]:
    """List the resets that wait for a decision."""
    return [ResetResponse.of(reset) for reset in await factor_store.list_open_resets(tx)]


@router.post(
    "/v1/users/factor-resets/{reset_id}/decision",
    permission="second-factors.reset",
    dependencies=RECENT_AUTHENTICATION,
    operation_id="decideFactorReset",
)
async def decide_factor_reset(tx: Tx, caller: Caller, reset_id: UUID, body: DecisionRequest) -> ResetResponse:
    """Decide on a reset that somebody else asked for, about a third person."""
    return ResetResponse.of(await enrolment.decide_reset(tx, caller, reset_id, approve=body.approve))
