"""HTTP in: to the operator's identity provider and back. Both are pages that a browser goes through."""

from typing import Annotated

from clinic_shared.errors import DomainError
from clinic_shared.routing import PUBLIC, ClinicRouter, CurrentContext
from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse

from clinic_identity import cookies, single_sign_on
from clinic_identity.fields import CurrentDesk, CurrentVisit
from clinic_identity.oidc_provider import SignOnRefusedError
from clinic_identity.sign_in_page import REFUSED, notice_page

router = ClinicRouter(tags=["identity"])

Text = Annotated[str, Query(max_length=4096)]


@router.get(
    "/v1/browser/sso/start",
    permission=PUBLIC,
    transactional=False,
    operation_id="startSingleSignOn",
    response_class=RedirectResponse,
    status_code=303,
    responses={303: {"description": "To the identity provider"}, "default": REFUSED},
)
async def start_single_sign_on(desk: CurrentDesk, context: CurrentContext, invitation: Text = "") -> Response:
    """Go to the operator's identity provider; with the token of an access link, to bind its account for good."""
    try:
        begun = await single_sign_on.begin(desk, context, invitation=invitation or None)
    except DomainError as error:
        return notice_page(error.title, error.fix, error.status)
    answer = RedirectResponse(begun.location, 303, headers={"Cache-Control": "no-store"})
    cookies.set_sign_on(answer, begun.browser_token)
    return answer


@router.get(
    "/v1/browser/sso/callback",
    permission=PUBLIC,
    transactional=False,
    include_in_schema=False,
)
async def finish_single_sign_on(
    desk: CurrentDesk,
    context: CurrentContext,
    visit: CurrentVisit,
    request: Request,
    state: Text = "",
    code: Text = "",
    iss: Text = "",
) -> Response:
    try:
        if not code:
            raise SignOnRefusedError  # the provider's own refusal, as any other
        cookie = await single_sign_on.complete(
            desk,
            context,
            state=state,
            code=code,
            told_issuer=iss or None,
            browser_token=request.cookies.get(cookies.SIGN_ON, ""),
            visit=visit,
        )
    except DomainError as error:
        answer: Response = notice_page(error.title, error.fix, error.status)
    else:
        answer = RedirectResponse("/", 303, headers={"Cache-Control": "no-store"})
        cookies.set_session(answer, cookie.value)
    cookies.forget_sign_on(answer)
    return answer
