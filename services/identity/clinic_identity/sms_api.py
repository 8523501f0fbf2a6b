"""HTTP in: codes by SMS, at logins of patients and for verifying their number."""

from clinic_shared.routing import PUBLIC, Caller, ClinicRouter, CurrentContext, Idempotency, Tx
from fastapi import Response

from clinic_identity import authentication, sms_enrolment
from clinic_identity.auth_api import TokenResponse
from clinic_identity.factor_api import (
    CodeRequest,
    RecoveryCodesResponse,
    TicketRequest,
    TotpLoginRequest,
)
from clinic_identity.factors import Method
from clinic_identity.fields import CurrentDesk, CurrentVisit
from clinic_identity.second_step import Shown

router = ClinicRouter(tags=["identity"])


@router.post(
    "/v1/auth/mfa/sms/send",
    permission=PUBLIC,
    status_code=202,
    response_class=Response,
    operation_id="sendLoginCode",
)
async def send_login_code(tx: Tx, desk: CurrentDesk, body: TicketRequest) -> Response:
    """Have a code sent to the number that the account's owner verified; again after 30 seconds.

    The newest code counts, for five minutes and for this login alone. Three in 15 minutes, ten in twelve hours.
    """
    await sms_enrolment.send_for_login(tx, desk, body.ticket)
    return Response(status_code=202)


@router.post("/v1/auth/mfa/sms", permission=PUBLIC, transactional=False, operation_id="logInWithSms")
async def log_in_with_sms(
    desk: CurrentDesk, context: CurrentContext, visit: CurrentVisit, body: TotpLoginRequest
) -> TokenResponse:
    """Finish a patient's login with the code that was sent for it. What wants two strong factors stays closed."""
    shown = Shown(method=Method.SMS, code=body.code)
    tokens = await authentication.log_in_with_second_factor(
        desk, context, ticket=body.ticket, shown=shown, visit=visit
    )
    return TokenResponse.of(tokens)


@router.post(
    "/v1/me/mfa/sms",
    permission="profile.read",
    idempotency=Idempotency.NONE,
    status_code=202,
    response_class=Response,
    operation_id="beginSms",
)
async def begin_sms(tx: Tx, desk: CurrentDesk, caller: Caller) -> Response:
    """Have a code sent to the phone number of one's record. For patients without an app or passkey."""
    await sms_enrolment.begin(tx, desk, caller)
    return Response(status_code=202)


@router.post(
    "/v1/me/mfa/sms/confirm",
    permission="profile.read",
    transactional=False,
    operation_id="confirmSms",
)
async def confirm_sms(desk: CurrentDesk, context: CurrentContext, body: CodeRequest) -> RecoveryCodesResponse:
    """Show that the phone is one's own: from now on logins ask for a code. All other sessions end.

    The recovery codes are shown this once: print them, each lets one in without the phone.
    """
    codes = await sms_enrolment.confirm(desk, context, body.code)
    return RecoveryCodesResponse(recovery_codes=codes)


@router.delete("/v1/me/mfa/sms", permission="profile.read", status_code=204, operation_id="removeSms")
async def remove_sms(tx: Tx, caller: Caller) -> Response:
    """Ask for no codes by SMS any more. All other sessions end."""
    await sms_enrolment.remove(tx, caller)
    return Response(status_code=204)
