"""The public API as a client uses it: one door, bearer tokens, an Idempotency-Key per write."""

import time
import uuid
from typing import Any, Self

import httpx

PROBLEM = "application/problem+json"
RENEW_BEFORE_SECONDS = 30


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
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._credentials = (login, password)
        self._token: tuple[str, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
        deadline = time.monotonic() + 30
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

    def authorization(self) -> dict[str, str]:
        """Return the header of a caller who is signed in, renewed in time."""
        login, password = self._credentials
        if login is None:
            return {}
        if self._token is None or self._token[1] < time.monotonic():
            answer = self._http.post("/v1/auth/login", json={"login": login, "password": password})
            if not answer.is_success:
                raise ApiError(answer)
            tokens = answer.json()
            life = tokens["expires_in"] - RENEW_BEFORE_SECONDS
            self._token = (tokens["access_token"], time.monotonic() + life)
        return {"Authorization": f"Bearer {self._token[0]}"}
