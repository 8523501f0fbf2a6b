"""API8:2023, security misconfiguration: what the public door shows to browsers and to the curious."""

import httpx
import pytest

from .conftest import TargetOf

PAGES = ("/docs", "/docs/events", "/problems/forbidden")
CURIOUS = (
    "/.env",
    "/.git/HEAD",
    "/actuator/env",
    "/admin",
    "/console",
    "/debug",
    "/debug/pprof",
    "/internal/revocations",
    "/openapi.json~",
    "/phpinfo.php",
    "/redoc",
    "/server-status",
    "/v1/debug",
    "/v1/internal/revocations",
)


async def test_no_page_may_be_framed_or_run_what_is_not_ours(gateway: httpx.AsyncClient) -> None:
    for path in PAGES:
        page = await gateway.get(path)
        assert page.status_code == httpx.codes.OK, path
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script" not in policy


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https:evil.example", "/%2f%2fevil.example"]
)
async def test_nothing_sends_a_browser_elsewhere(gateway: httpx.AsyncClient, target: str) -> None:
    for path in ("/", "/docs", "/v1/auth/login", target.replace("https:", "/https:")):
        for name in ("next", "url", "redirect", "return_to"):
            answer = await gateway.get(path, params={name: target})
            assert not answer.headers.get("location", "/docs").startswith(("//", "/\\", "http"))


async def test_what_helps_only_attackers_is_not_there(gateway: httpx.AsyncClient) -> None:
    for path in CURIOUS:
        answer = await gateway.get(path)
        assert answer.status_code in {401, 404}, path
        assert "server" not in answer.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/debug", "/.git/HEAD"])
async def test_a_service_shows_no_pages(path: str, target_of: TargetOf) -> None:
    assert (await (await target_of("identity")).service.http.get(path)).status_code in {401, 404}
