"""What the gateway itself refuses; the docstring and `fix` are what the problem's page says."""

import math
from typing import TYPE_CHECKING

from clinic_shared.errors import DomainError

if TYPE_CHECKING:
    from clinic_gateway.limits import Standing


class MalformedRequestError(DomainError):
    """The HTTP message is ambiguous: a header came twice, Host is missing, or the path could be read
    in two ways.
    """

    slug = "malformed-request"
    title = "The request can't be understood"
    status = 400
    fix = "Send one Host header and a plain path without empty or dot segments."


class TwoCredentialsError(DomainError):
    """The request has an access token and a session cookie, or two cookies: they could be two people's."""

    slug = "two-credentials"
    title = "The request has more than one credential"
    status = 400
    fix = "Browsers send the cookie alone, everybody else a token alone."


class ForgedRequestError(DomainError):
    """A browser sent it with its cookie, but not on behalf of a page of this site that knows the CSRF token."""

    slug = "forged-request"
    title = "The request doesn't come from a page of this site"
    status = 403
    fix = "Send the `csrf_token` of the login, or of `GET /v1/browser/session`, as `X-CSRF-Token`."


class TokenNotHandedOutError(DomainError):
    """A session with a cookie stays one: its tokens don't reach the page."""

    slug = "token-not-handed-out"
    title = "This is not for browsers"
    status = 409
    fix = "Use the operation of the same name under `/v1/browser`."


class UnknownPathError(DomainError):
    """No service is responsible for this path."""

    slug = "unknown-path"
    title = "There is nothing under this path"
    status = 404
    fix = "The paths that exist are listed at /docs."


class NotInstalledError(DomainError):
    """The operator of this network left out the service that answers here. Everything else works."""

    slug = "not-installed"
    title = "The service for this path is not installed here"
    status = 404
    fix = "Ask the operator; `clinic status` lists what is installed."


class BodyTooLargeError(DomainError):
    slug = "body-too-large"
    title = "The body is too large"
    status = 413


class UnsupportedMediaTypeError(DomainError):
    slug = "unsupported-media-type"
    title = "The body's media type is not supported"
    status = 415


class HeadersTooLargeError(DomainError):
    """The headers together are larger than `max_bytes`."""

    slug = "headers-too-large"
    title = "The request's headers are too large"
    status = 431
    fix = "Leave out what isn't needed, cookies first."


class TooManyRequestsError(DomainError):
    """More requests came from this address or this account than the network's limits allow.

    `RateLimit-Policy` names the limit that was met, `RateLimit` says when the next request is taken.
    """

    slug = "too-many-requests"
    title = "Too many requests"
    status = 429
    fix = "Wait as many seconds as `Retry-After` says, then go on more slowly."

    def __init__(self, standing: "Standing", wait_seconds: float) -> None:
        super().__init__()
        self.standing = standing
        self.wait_seconds = wait_seconds
        self.retry_after_seconds = math.ceil(wait_seconds)


class TooManyStreamsError(DomainError):
    """The account follows live updates with as many streams as it may."""

    slug = "too-many-streams"
    title = "Too many live updates at once"
    status = 429
    fix = "Close a stream that isn't needed; one per browser is enough."


class BadGatewayError(DomainError):
    """The service closed the connection before its answer was complete. It may have done its work."""

    slug = "bad-gateway"
    title = "The service broke off its answer"
    status = 502
    fix = "Repeat a write with the same Idempotency-Key: it takes effect once."


class ServiceDownError(DomainError):
    """The service can't be reached. The request had no effect."""

    slug = "service-down"
    title = "The service is down"
    status = 503
    retry_after_seconds = 2
    fix = "Try again after `Retry-After` seconds."


class CircuitOpenError(DomainError):
    """The service failed several times in a row and isn't asked for a moment, so that it can recover.
    The request had no effect.
    """

    slug = "circuit-open"
    title = "The service is being given a rest"
    status = 503
    fix = "Try again after `Retry-After` seconds."

    def __init__(self, wait_seconds: float) -> None:
        super().__init__()
        self.retry_after_seconds = math.ceil(wait_seconds)


class OverloadedError(DomainError):
    """More is asked of the service than it can answer in time. The request had no effect.

    What laboratories and payment providers hand over goes before everything else.
    """

    slug = "overloaded"
    title = "The service has too much to do at this moment"
    status = 503
    retry_after_seconds = 1
    fix = "Try again after `Retry-After` seconds, and then after ever longer pauses."


class RequestTimeoutError(DomainError):
    """The body didn't arrive within the time that a request has."""

    slug = "request-timeout"
    title = "The request's body took too long"
    status = 408
    fix = "Send it again, over a faster connection or in smaller parts."


class ServiceTimeoutError(DomainError):
    """The service took too long. It may have done its work."""

    slug = "service-timeout"
    title = "The service didn't answer in time"
    status = 504
    retry_after_seconds = 2
    fix = "Repeat a write with the same Idempotency-Key: it takes effect once."
