"""The errors of the domain: pure, without a framework.

A `DomainError` names the broken rule by its `slug`; `problems.py` alone turns it into
`application/problem+json` (RFC 9457). Details never carry patient data.
"""

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID


class DomainError(Exception):
    """A rule was broken. `extensions` become members of the problem document.

    A subclass's docstring and `fix` are what the problem's own page says of its cause and remedy.
    """

    slug: ClassVar[str] = "conflict"
    title: ClassVar[str] = "The request conflicts with the current state"
    status: ClassVar[int] = 409
    retry_after_seconds: int | None = None
    fix: ClassVar[str] = ""

    def __init__(self, detail: str = "", **extensions: object) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extensions = extensions


class InvalidRequestError(DomainError):
    slug = "invalid-request"
    title = "The request is not valid"
    status = 422


class UnauthenticatedError(DomainError):
    slug = "unauthenticated"
    title = "Credentials are missing or not valid"
    status = 401
    challenge: str | None = None
    """What WWW-Authenticate says, where it is more than that the token isn't valid."""


class ForbiddenError(DomainError):
    slug = "forbidden"
    title = "You may not do this"
    status = 403


class TransferNotAllowedError(ForbiddenError):
    """The law of the deployment's jurisdiction doesn't let patients' data go to this country."""

    slug = "transfer-not-allowed"
    title = "Patients' data may not go to this country"
    fix = (
        "Choose a recipient in a country that `basis` allows. Where there is another ground, such as standard"
        " contractual clauses, the operator adds the country to CLINIC_TRANSFERS_ALSO_TO."
    )


class NotFoundError(DomainError):
    """Also the answer for a patient's data the caller may not know to exist."""

    slug = "not-found"
    title = "There is no such resource"
    status = 404


class ConcealedError(NotFoundError):
    """A refusal that answers like an absence, so that nobody learns which patients exist.

    Whose record it was and why stands in the audit, never in the answer.
    """

    def __init__(
        self, *, patient_id: UUID | None = None, explanation: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.patient_id = patient_id
        self.explanation = explanation or {}


class PreconditionFailedError(DomainError):
    slug = "precondition-failed"
    title = "The resource was changed by someone else"
    status = 412


class PreconditionRequiredError(DomainError):
    slug = "precondition-required"
    title = "This request needs an If-Match header"
    status = 428


class ReferenceNotYetKnownError(DomainError):
    """The reference may exist at its owner and not have arrived here: try again shortly."""

    slug = "reference-not-yet-known"
    title = "A referenced resource is not known here yet"
    status = 409
    retry_after_seconds = 1


class TemporarilyUnavailableError(DomainError):
    slug = "temporarily-unavailable"
    title = "The service can't take this right now"
    status = 503
    retry_after_seconds = 5


class RuleError(ValueError):
    """A rule of a request's model that its schema can't express. Callers read the text: it never quotes the value."""
