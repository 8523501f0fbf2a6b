"""HTTP in: logging in, one's own account and sessions."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from clinic_shared.errors import DomainError, NotFoundError, RuleError
from clinic_shared.routing import (
    AUTHENTICATED,
    PUBLIC,
    Caller,
    ClinicRouter,
    CurrentContext,
    Idempotency,
    Tx,
)
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinic_identity import authentication, devices, fields, locking, session_store, sessions, store
from clinic_identity.domain import AccountKind, Session
from clinic_identity.fields import CurrentDesk, CurrentVisit, Login, Password
from clinic_identity.staff_api import PersonNameBody

router = ClinicRouter(tags=["identity"])


# -- logging in


class FirstStepRequest(fields.Request):
    """The first step of every login."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"login": "anna.testova@example.org", "password": "correct horse battery staple"}]
        },
    )

    login: Login
    password: Password


class LoginRequest(FirstStepRequest):
    device_token: Annotated[
        str | None, Field(max_length=128, description="From an earlier login on this device")
    ] = None


class RefreshRequest(fields.Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"refresh_token": "rt_fictitious"}]})

    refresh_token: Annotated[str, Field(min_length=1, max_length=256)]


class TokenResponse(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # RFC 6750
    expires_in: Annotated[int, Field(description="Seconds")]
    refresh_token: Annotated[str, Field(description="Works once")]
    session_id: UUID
    session_expires_at: datetime
    device_token: Annotated[
        str | None,
        Field(
            description="For this device to keep and send with later logins: guesses of others don't delay it"
        ),
    ] = None
    must_change_password: bool
    must_enrol: Annotated[
        bool, Field(description="Until a second factor is added, nothing but that is open (`/v1/me/mfa`)")
    ] = False
    second_factor_due_at: Annotated[
        datetime | None, Field(description="From when on a second factor is needed that isn't there yet")
    ] = None

    @classmethod
    def of(cls, tokens: sessions.Tokens) -> Self:
        return cls(
            access_token=tokens.access_token,
            expires_in=tokens.expires_in_seconds,
            refresh_token=tokens.refresh_token,
            session_id=tokens.session.session_id,
            session_expires_at=tokens.session.expires_at,
            device_token=tokens.device_token,
            must_change_password=tokens.must_change_password,
            must_enrol=tokens.must_enrol,
            second_factor_due_at=tokens.second_factor_due_at,
        )


@router.post("/v1/auth/login", permission=PUBLIC, transactional=False, operation_id="logIn")
async def log_in(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: LoginRequest
) -> TokenResponse:
    """Open a session with an e-mail address or phone number and a password.

    After the fifth failure in a row each further one makes the account wait longer: 429 with Retry-After.
    An account with a second factor gets 401 `mfa-required` with a `ticket`: `/v1/auth/mfa/...` goes on with it.
    """
    tokens = await authentication.log_in(
        desk,
        context,
        login=body.login,
        password=body.password,
        visit=replace(visit, device_token=body.device_token),
    )
    return TokenResponse.of(tokens)


@router.post("/v1/auth/refresh", permission=PUBLIC, transactional=False, operation_id="refreshSession")
async def refresh_session(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: RefreshRequest
) -> TokenResponse:
    """Exchange a refresh token for new tokens. Using one twice ends the session for both users of it."""
    async with desk.database.transaction(context) as tx:
        outcome = await sessions.refresh_session(tx, desk, body.refresh_token, visit=visit)
    # After the commit: a theft that was noticed stays recorded.
    if isinstance(outcome, DomainError):
        raise outcome
    return TokenResponse.of(outcome)


class UnlockRequest(fields.Request):
    """The PIN, or the password."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"refresh_token": "rt_fictitious", "pin": "274918"}]}
    )

    refresh_token: Annotated[str, Field(min_length=1, max_length=256)]
    pin: Annotated[str | None, Field(min_length=1, max_length=12)] = None
    password: Password | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.pin is None) == (self.password is None):
            raise RuleError("give the PIN or the password")
        return self


@router.post("/v1/auth/unlock", permission=PUBLIC, transactional=False, operation_id="unlockSession")
async def unlock_session(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: UnlockRequest
) -> TokenResponse:
    """Go on with a session that was locked, without a second factor. Five tries; the session gets a new id."""
    tokens = await locking.unlock(
        desk,
        context,
        refresh_token=body.refresh_token,
        pin=body.pin,
        password=body.password,
        visit=visit,
    )
    return TokenResponse.of(tokens)


@router.post(
    "/v1/auth/logout",
    permission=AUTHENTICATED,
    idempotency=Idempotency.NONE,
    status_code=204,
    operation_id="logOut",
)
async def log_out(tx: Tx, caller: Caller) -> Response:
    """End the session that the access token belongs to. Its tokens are void everywhere within seconds."""
    if caller.session_id is not None:
        await sessions.end_own_session(tx, caller, caller.session_id, reason_code="logout")
    return Response(status_code=204)


# -- one's own account


class MeResponse(BaseModel):
    account_id: UUID
    kind: Literal["staff", "patient"]
    login: str
    name: PersonNameBody | None
    roles: list[str]
    scopes: list[str]
    network: bool
    centre_ids: list[UUID]
    department_ids: list[UUID]
    patient_id: UUID | None
    session_id: UUID | None
    must_change_password: bool


class PasswordRequest(fields.Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "current_password": "correct horse battery staple",
                    "new_password": "another fictitious passphrase",
                }
            ]
        }
    )

    current_password: Password
    new_password: Annotated[
        Password, Field(description="Staff: at least 12 characters; patients: at least 15; at most 256")
    ]


@router.get("/v1/me", permission="profile.read", operation_id="getMe")
async def get_me(tx: Tx, caller: Caller) -> MeResponse:
    """Return who the caller is and what they may do where."""
    account = await store.find_account(tx, caller.subject)
    if account is None:
        raise NotFoundError
    member = await store.find_staff(tx, caller.subject) if account.kind is AccountKind.STAFF else None
    name = (
        PersonNameBody(family=member.family, given=member.given, patronymic=member.patronymic)
        if member
        else None
    )
    return MeResponse(
        account_id=account.account_id,
        kind=account.kind.value,
        login=account.login,
        name=name,
        roles=sorted(caller.roles),
        scopes=sorted(caller.scopes),
        network=caller.network,
        centre_ids=sorted(caller.centre_ids),
        department_ids=sorted(caller.department_ids),
        patient_id=caller.patient_id,
        session_id=caller.session_id,
        must_change_password=account.must_change_password,
    )


@router.post(
    "/v1/me/password",
    permission="profile.read",
    transactional=False,
    status_code=204,
    operation_id="changePassword",
)
async def change_password(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: PasswordRequest
) -> Response:
    """Replace one's password. All other sessions end; a refresh of this one brings full rights."""
    await authentication.change_password(
        desk,
        context,
        current_password=body.current_password,
        new_password=body.new_password,
        address=visit.address,
    )
    return Response(status_code=204)


class SessionResponse(BaseModel):
    session_id: UUID
    started_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    agent: Annotated[str | None, Field(description="What the browser or app calls itself")]
    methods: Annotated[list[str], Field(description="How its owner showed who they are (RFC 8176)")]
    client_id: Annotated[str | None, Field(description="The app that holds it")]
    new_device: Annotated[bool, Field(description="Begun on a device that hadn't been seen before")]
    current: bool

    @classmethod
    def of(cls, session: Session, *, current: UUID | None, new_device: bool) -> Self:
        return cls(
            session_id=session.session_id,
            started_at=session.started_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
            address=session.address,
            agent=session.agent,
            methods=list(session.amr),
            client_id=session.client_id,
            new_device=new_device,
            current=session.session_id == current,
        )


@router.get("/v1/sessions", permission="profile.read", operation_id="listSessions")
async def list_sessions(tx: Tx, caller: Caller) -> list[SessionResponse]:
    """List one's own sessions that are still open."""
    return await _open_sessions(tx, caller.subject, caller)


async def _open_sessions(tx: Tx, account_id: UUID, caller: Caller) -> list[SessionResponse]:
    first_seen = await devices.first_seen(tx, account_id)
    return [
        SessionResponse.of(
            session,
            current=caller.session_id,
            new_device=session.device_id is not None
            and first_seen.get(session.device_id) == session.started_at,
        )
        for session in await session_store.list_sessions(tx, account_id)
    ]


@router.post(
    "/v1/sessions/current/lock",
    permission=AUTHENTICATED,
    idempotency=Idempotency.NONE,
    status_code=204,
    operation_id="lockSession",
)
async def lock_session(tx: Tx, caller: Caller) -> Response:
    """Lock the workstation: its tokens are void within seconds, until `/v1/auth/unlock`."""
    await sessions.lock_own_workstation(tx, caller)
    return Response(status_code=204)


class PinRequest(fields.Request):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"pin": "274918"}]})

    pin: Annotated[str, Field(pattern=r"^[0-9]{6,12}$")]


@router.put(
    "/v1/me/pin",
    permission="profile.read",
    transactional=False,
    status_code=204,
    operation_id="choosePin",
)
async def choose_pin(desk: CurrentDesk, context: CurrentContext, body: PinRequest) -> Response:
    """Choose the PIN that unlocks one's locked sessions, within five minutes of a login."""
    await locking.choose_pin(desk, context, body.pin)
    return Response(status_code=204)


@router.get(
    "/v1/users/{account_id}/sessions", permission="sessions.manage", operation_id="listSessionsOfUser"
)
async def list_sessions_of_user(tx: Tx, caller: Caller, account_id: UUID) -> list[SessionResponse]:
    """List somebody's sessions that are still open."""
    return await _open_sessions(tx, account_id, caller)


@router.delete(
    "/v1/users/{account_id}/sessions",
    permission="sessions.manage",
    status_code=204,
    operation_id="endSessionsOfUser",
)
async def end_sessions_of_user(tx: Tx, account_id: UUID) -> Response:
    """End all of somebody's sessions; what they hold is void within seconds."""
    account = await store.lock_account(tx, account_id)
    if account is None:
        raise NotFoundError
    await sessions.end_sessions(tx, account, reason_code="ended-by-hand")
    return Response(status_code=204)


@router.delete(
    "/v1/sessions/{session_id}", permission="profile.read", status_code=204, operation_id="endSession"
)
async def end_session(tx: Tx, caller: Caller, session_id: UUID) -> Response:
    """End a session: one's own, or with `sessions.manage` anybody's."""
    if caller.may("sessions.manage"):
        await sessions.end_any_session(tx, session_id, reason_code="ended-by-hand")
    else:
        await sessions.end_own_session(tx, caller, session_id, reason_code="ended-by-hand")
    return Response(status_code=204)
