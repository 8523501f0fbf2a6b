"""The cookie that stands for a browser's session: identity makes it, the gateway reads it, nobody else sees it."""

import base64
import hashlib

NAME = "__Host-clinic-session"
"""The prefix makes browsers insist on Secure, Path=/ and no Domain: no other host can set it."""
CSRF_HEADER = "X-CSRF-Token"


def digest_of(value: str) -> bytes:
    """Return what is kept of a cookie. 256 random bits: nothing to guess, so a fast hash is enough."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()


def csrf_token_of(digest: bytes) -> str:
    """Return what a page has to send along with whatever changes something.

    It follows from the cookie, which scripts of another site can make a browser send, but can't read.
    """
    return base64.urlsafe_b64encode(hashlib.sha256(b"csrf:" + digest).digest()).rstrip(b"=").decode()
