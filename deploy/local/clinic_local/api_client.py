"""The public API as a client uses it: one door, bearer tokens, an Idempotency-Key per write."""

import contextlib
import os
import sys
import time
import uuid
from typing import Any, Self

import httpx

PROBLEM = "application/problem+json"
RENEW_BEFORE_SECONDS = 30
PATIENCE_SECONDS = 60
"""How long a busy platform may say to come again: a broker alone may take half a minute to give a queue back."""


class ApiError(Exception):
    """An answer that wasn't expected; `problem` is the problem document, if it was one."""

    def __init__(self, response: httpx.Response) -> None:
        request = response.request
        is_problem = response.headers.get("content-type", "").startswith(PROBLEM)
        self.status = response.status_code
        self.problem: dict[str, Any] = response.json() if is_problem else {}
        detail = self.problem.get("detail") or response.text[:200]
        super().__init__(f"{request.method} {request.url.path} answered {self.status}: {detail}")

    @property
    def slug(self) -> str:
        return str(self.problem.get("type", "")).rpartition("/")[2]


class Caller:
    """Somebody who calls the API; without credentials, anybody."""

    def __init__(self, url: str, login: str | None = None, password: str | None = None) -> None:
        # Loopback: a proxy of the machine has nothing to do here.
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self._credentials = (login, password)
        self._token: tuple[str, float] | None = None
        self._refresh_token: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log_out()
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        query = {k: list(map(str, v)) if isinstance(v, list) else str(v) for k, v in parameters.items()}
        return self.send("GET", path, params=query).json()

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.send("POST", path, json={} if body is None else body)
        return answer.json() if answer.content else None

    def put(self, path: str, body: Any, *, version: int | None = None) -> Any:
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return self.send("PUT", path, json=body, headers=headers).json()

    def items(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return all pages of a list."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, **parameters, **cursor)
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request; a write is repeated with its key while the platform says to come again.

        Raises ApiError for any other refusal.
        """
        sent = {**self.authorization(), **(headers or {})}
        if method == "POST":
            sent.setdefault("Idempotency-Key", str(uuid.uuid4()))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._http.request(method, path, headers=sent, **options)
            again = answer.status_code in {429, 503} or (
                answer.status_code == httpx.codes.CONFLICT
                and ApiError(answer).slug == "reference-not-yet-known"
            )
            if not again or time.monotonic() > deadline:
                break
            time.sleep(min(float(answer.headers.get("Retry-After", "1")), 2))
        if not answer.is_success:
            raise ApiError(answer)
        return answer

    def forget_token(self) -> None:
        """Let the next request get a token of its own."""
        self._token = None

    def authorization(self) -> dict[str, str]:
        """Return the header of a caller who is signed in, renewed in time."""
        login, password = self._credentials
        if login is None:
            return {}
        if self._token is None or self._token[1] < time.monotonic():
            tokens = self._renewed() or self._signed_in(login, password)
            life = tokens["expires_in"] - RENEW_BEFORE_SECONDS
            self._token = (tokens["access_token"], time.monotonic() + life)
        return {"Authorization": f"Bearer {self._token[0]}"}

    def _signed_in(self, login: str, password: str | None) -> dict[str, Any]:
        answer = self._http.post("/v1/auth/login", json={"login": login, "password": password})
        if answer.status_code == httpx.codes.UNAUTHORIZED and ApiError(answer).slug == "mfa-required":
            shown = {"ticket": answer.json()["ticket"], "code": _one_time_code(answer)}
            answer = self._http.post("/v1/auth/mfa/totp", json=shown)
            # Codes count once, and people type them: from now on the session is kept alive instead.
            self._refresh_token = answer.json().get("refresh_token") if answer.is_success else None
        if not answer.is_success:
            raise ApiError(answer)
        return dict(answer.json())

    def _renewed(self) -> dict[str, Any] | None:
        if self._refresh_token is None:
            return None
        answer = self._http.post("/v1/auth/refresh", json={"refresh_token": self._refresh_token})
        self._refresh_token = answer.json().get("refresh_token") if answer.is_success else None
        return dict(answer.json()) if answer.is_success else None

    def _log_out(self) -> None:
        """End a session that took a second factor: administrators have one at a time."""
        if self._refresh_token is not None and self._token is not None:
            with contextlib.suppress(httpx.HTTPError):
                self._http.post("/v1/auth/logout", headers={"Authorization": f"Bearer {self._token[0]}"})


def _one_time_code(asked: httpx.Response) -> str:
    """Return the code of an authenticator app: from CLINIC_ONE_TIME_CODE, or from whoever sits here."""
    given = os.environ.get("CLINIC_ONE_TIME_CODE")
    if given is None and not sys.stdin.isatty():
        raise ApiError(asked)
    return given or input("Code of your authenticator app: ").strip()
