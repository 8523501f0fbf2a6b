"""Rate limits of single routes, and what callers are told of where they stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clinic_gateway.rate_rules import DEFAULT_FILE, read_rules

if TYPE_CHECKING:
    from .conftest import Bearer, Clinic, StartClinic

RULES = """
- {name: reports, by: caller, paths: [/v1/reports], per_second: 0.5, burst: 2}
- {name: writing, by: caller, paths: [/v1/patients, /v1/appointments], methods: [POST], per_second: 1, burst: 1}
- {name: hooks, by: address, paths: [/v1/webhooks/payments], per_second: 0.1, burst: 1}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "limits.yaml"
        file.write_text(text)
        return file

    return write


async def statuses(clinic: Clinic, method: str, path: str, count: int, headers: dict[str, str]) -> list[int]:
    return [(await clinic.http.request(method, path, headers=headers)).status_code for _ in range(count)]


async def test_a_route_has_a_limit_per_caller(
    start_clinic: StartClinic, bearer: Bearer, rules: Callable[[str], Path]
) -> None:
    async with start_clinic("reporting", "scheduling", rate_limits_file=rules(RULES)) as clinic:
        one, other = bearer(), bearer()
        assert await statuses(clinic, "GET", "/v1/reports/x", 3, one) == [200, 200, 429]
        assert await statuses(clinic, "GET", "/v1/reports/x", 1, other) == [200]
        assert await statuses(clinic, "GET", "/v1/slots", 5, one) == [200] * 5


async def test_callers_see_where_they_stand(
    start_clinic: StartClinic, bearer: Bearer, rules: Callable[[str], Path]
) -> None:
    async with start_clinic("reporting", rate_limits_file=rules(RULES)) as clinic:
        headers = bearer()
        first, second, refused = [await clinic.http.get("/v1/reports/x", headers=headers) for _ in range(3)]
        assert first.headers["ratelimit-policy"] == '"reports";q=2;w=4'
        assert first.headers["ratelimit"] == '"reports";r=1;t=2'
        assert second.headers["ratelimit"].startswith('"reports";r=0;t=')
        assert refused.json()["type"] == "/problems/too-many-requests"
        assert refused.headers["ratelimit-policy"] == first.headers["ratelimit-policy"]
        wait = re.fullmatch(r'"reports";r=0;t=(\d+)', refused.headers["ratelimit"])
        assert wait is not None
        assert refused.headers["retry-after"] == wait[1]
        assert 1 <= int(wait[1]) <= 2
        metrics = (await clinic.http.get("/metrics")).text
        assert 'clinic_gateway_rate_limited_total{limit="reports"}' in metrics


async def test_the_limit_that_leaves_least_is_told(start_clinic: StartClinic, bearer: Bearer) -> None:
    async with start_clinic(
        "scheduling", rate_address_per_second=1000, rate_subject_per_second=5, rate_burst_seconds=2
    ) as clinic:
        answer = await clinic.http.get("/v1/slots", headers=bearer())
        assert answer.headers["ratelimit-policy"] == '"caller";q=10;w=2'
        assert answer.headers["ratelimit"] == '"caller";r=9;t=1'


async def test_without_limits_nothing_is_told(start_clinic: StartClinic, bearer: Bearer) -> None:
    async with start_clinic("scheduling") as clinic:
        assert "ratelimit" not in (await clinic.http.get("/v1/slots", headers=bearer())).headers


async def test_several_paths_of_a_rule_count_together_and_only_for_its_methods(
    start_clinic: StartClinic, bearer: Bearer, rules: Callable[[str], Path]
) -> None:
    async with start_clinic("patients", "scheduling", rate_limits_file=rules(RULES)) as clinic:
        headers = bearer()
        json = headers | {"content-type": "application/json"}
        assert await statuses(clinic, "POST", "/v1/patients", 1, json) == [200]
        assert await statuses(clinic, "POST", "/v1/appointments", 1, json) == [429]
        assert await statuses(clinic, "GET", "/v1/patients", 3, headers) == [200] * 3


async def test_without_a_token_an_address_is_the_caller(
    start_clinic: StartClinic, rules: Callable[[str], Path]
) -> None:
    """Whoever claims a laboratory's name must not use up that laboratory's allowance."""
    lab = "- {name: labs, by: caller, paths: [/v1/lab/messages], per_second: 0.1, burst: 2}"
    async with start_clinic("lab-integration", rate_limits_file=rules(lab), trusted_hops=1) as clinic:
        basic = {"authorization": "Basic bGFiOng=", "content-type": "text/plain"}
        thief, lab_itself = basic | {"x-forwarded-for": "10.0.0.1"}, basic | {"x-forwarded-for": "10.0.0.2"}
        assert await statuses(clinic, "POST", "/v1/lab/messages", 3, thief) == [200, 200, 429]
        assert await statuses(clinic, "POST", "/v1/lab/messages", 2, lab_itself) == [200, 200]


async def test_public_routes_are_limited_per_address(
    start_clinic: StartClinic, rules: Callable[[str], Path]
) -> None:
    async with start_clinic("billing", rate_limits_file=rules(RULES)) as clinic:
        assert await statuses(clinic, "POST", "/v1/webhooks/payments/x", 2, {}) == [200, 429]


def test_the_limits_that_come_along_are_valid() -> None:
    assert {"lab-messages", "webhooks", "reports"} <= {rule.name for rule in read_rules(DEFAULT_FILE)}


@pytest.mark.parametrize(
    "text",
    [
        "- {name: x, by: caller, paths: [/v1/nowhere], per_second: 1, burst: 1}",
        "- {name: x, by: moon, paths: [/v1/slots], per_second: 1, burst: 1}",
        "- {name: x, by: caller, paths: [/v1/slots], per_second: 0, burst: 1}",
        "- {name: x, by: caller, paths: [], per_second: 1, burst: 1}",
        "- {name: 'A b', by: caller, paths: [/v1/slots], per_second: 1, burst: 1}",
        "name: x",
    ],
)
def test_a_file_with_mistakes_is_refused_at_the_start(rules: Callable[[str], Path], text: str) -> None:
    with pytest.raises(ValueError, match=r"nowhere|validation error"):
        read_rules(rules(text))


def test_an_empty_file_means_no_limits(rules: Callable[[str], Path]) -> None:
    assert read_rules(rules("")) == []
