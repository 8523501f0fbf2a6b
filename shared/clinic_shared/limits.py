"""What a request's body may be: how large, of which media type, and JSON without surprises.

Routes declare their own limits; they are applied after the caller is known and allowed, so that
strangers can't make a service read or parse anything.
"""

from typing import Any, ClassVar

from fastapi import Request

from clinic_shared import strict_json
from clinic_shared.errors import DomainError

DEFAULT_MAX_BODY_BYTES = 1024 * 1024
JSON_ONLY = ("application/json",)


class BodyTooLargeError(DomainError):
    """The body is larger than this operation takes."""

    slug: ClassVar[str] = "body-too-large"
    title: ClassVar[str] = "The body is too large"
    status: ClassVar[int] = 413


class UnsupportedMediaTypeError(DomainError):
    """The Content-Type, charset or Content-Encoding isn't one that this operation takes."""

    slug: ClassVar[str] = "unsupported-media-type"
    title: ClassVar[str] = "The body's media type is not supported"
    status: ClassVar[int] = 415


class InvalidJSONError(DomainError):
    """The body isn't acceptable JSON."""

    slug: ClassVar[str] = "invalid-json"
    title: ClassVar[str] = "The body is not acceptable JSON"
    status: ClassVar[int] = 400


class InvalidURLError(DomainError):
    """The path or query holds a NUL character, which PostgreSQL can't store."""

    slug: ClassVar[str] = "invalid-url"
    title: ClassVar[str] = "The URL is not acceptable"
    status: ClassVar[int] = 400


def is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def check_url(request: Request) -> None:
    """Refuse NUL characters. Raises InvalidURLError."""
    if "\x00" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise InvalidURLError


def check_media_type(request: Request, accepted: tuple[str, ...]) -> str:
    """Return the body's media type, without parameters. Raises UnsupportedMediaTypeError."""
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    media_type = media_type.strip().lower()
    if media_type not in accepted or "content-encoding" in request.headers:
        raise UnsupportedMediaTypeError(supported=list(accepted))
    if is_json(media_type) and not _is_utf8(parameters):
        raise UnsupportedMediaTypeError("JSON is UTF-8 (RFC 8259, 8.1).", supported=list(accepted))
    return media_type


def _is_utf8(parameters: str) -> bool:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            return False
    return True


class CheckedRequest(Request):
    """A request whose body was read, measured and parsed once; FastAPI takes it from here."""

    _json: Any

    async def read(self, *, max_bytes: int, accepted: tuple[str, ...]) -> bytes:
        """Read the whole body. Raises BodyTooLargeError, UnsupportedMediaTypeError, InvalidJSONError."""
        self._body = await self._read_at_most(max_bytes)
        if self._body and is_json(check_media_type(self, accepted)):
            try:
                self._json = strict_json.loads(self._body)
            except strict_json.StrictJSONError as error:
                raise InvalidJSONError(f"The body was refused: {error.reason}.") from None
        return self._body

    async def _read_at_most(self, max_bytes: int) -> bytes:
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise BodyTooLargeError(max_bytes=max_bytes)
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > max_bytes:
                raise BodyTooLargeError(max_bytes=max_bytes)
        return bytes(body)
