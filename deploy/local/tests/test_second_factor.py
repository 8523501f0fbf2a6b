"""A command of somebody with a second factor: asked once, kept alive, and logged out at the end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from clinic_local.api_client import ApiError, Caller

CODE = "123456"


class _Identity(BaseHTTPRequestHandler):
    """Asks for a second factor; its access tokens are due for renewal at once."""

    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self.asked.append(self.path)
        tokens = {"access_token": f"at_{len(self.asked)}", "refresh_token": "rt_next", "expires_in": 0}
        match self.path:
            case "/v1/auth/login":
                self._answer(401, {"type": "/problems/mfa-required", "ticket": "st_one"})
            case "/v1/auth/mfa/totp" if body == {"ticket": "st_one", "code": CODE}:
                self._answer(200, tokens)
            case "/v1/auth/refresh" if body == {"refresh_token": "rt_next"}:
                self._answer(200, tokens)
            case "/v1/auth/logout" | "/v1/anything":
                self._answer(200, {})
            case _:
                self._answer(401, {"type": "/problems/invalid-second-factor"})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def identity() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Identity", (_Identity,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_the_code_is_used_once_and_the_session_ends_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLINIC_ONE_TIME_CODE", CODE)
    with identity() as (url, asked):
        with Caller(url, "admin@example.org", "a password") as caller:
            caller.post("/v1/anything")
            caller.post("/v1/anything")
        assert asked == [
            "/v1/auth/login",
            "/v1/auth/mfa/totp",
            "/v1/anything",
            "/v1/auth/refresh",
            "/v1/anything",
            "/v1/auth/logout",
        ]


def test_a_wrong_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_ONE_TIME_CODE", "000000")
    with identity() as (url, _), Caller(url, "admin@example.org", "a password") as caller:
        with pytest.raises(ApiError) as refused:
            caller.post("/v1/anything")
        assert refused.value.slug == "invalid-second-factor"


def test_where_nobody_sits_the_need_of_a_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINIC_ONE_TIME_CODE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with identity() as (url, _), Caller(url, "admin@example.org", "a password") as caller:
        with pytest.raises(ApiError) as refused:
            caller.post("/v1/anything")
        assert refused.value.slug == "mfa-required"
