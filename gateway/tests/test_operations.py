from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Bearer, Clinic, Reply, StartClinic

EVENTS = "/v1/ops/events?subject=1"


@pytest.fixture
async def three(start_clinic: StartClinic) -> AsyncIterator[Clinic]:
    async with start_clinic("patients", "scheduling", down=("billing",)) as clinic:
        yield clinic


async def test_what_happened_is_joined_from_all_services_in_order(
    three: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    three["patients"].replies = [
        reply(document={"items": [{"recorded_at": "2026-03-02T06:00:00Z"}], "next_cursor": "x"})
    ]
    later_and_earlier = [{"recorded_at": "2026-03-02T07:00:00Z"}, {"recorded_at": "2026-03-02T05:00:00Z"}]
    three["scheduling"].replies = [reply(document={"items": later_and_earlier, "next_cursor": None})]
    answer = (await three.http.get(EVENTS, headers=bearer())).json()
    assert [item["service"] for item in answer["items"]] == ["scheduling", "patients", "scheduling"]
    assert answer["services"] == {"patients": {"next_cursor": "x"}, "scheduling": {"next_cursor": None}}
    assert three["patients"].seen[0].target == EVENTS


async def test_ledgers_stand_side_by_side(three: Clinic, bearer: Bearer, reply: type[Reply]) -> None:
    for name in ("patients", "scheduling"):
        line = {"interface": "x", "answered": 1, "balanced": True}
        three[name].replies = [reply(document={"service": name, "interfaces": [line], "money_sum_minor": 0})]
    answer = (await three.http.get("/v1/ops/ledger", headers=bearer())).json()
    assert [line["service"] for line in answer["interfaces"]] == ["patients", "scheduling"]
    assert answer["services"]["scheduling"] == {"service": "scheduling", "money_sum_minor": 0}


async def test_a_service_that_cant_be_reached_is_named(three: Clinic, bearer: Bearer) -> None:
    answer = (await three.http.get("/v1/ops/ledger", headers=bearer())).json()
    assert answer["unreachable"] == [{"service": "billing", "reason": "service-down"}]
    assert set(answer["services"]) == {"patients", "scheduling"}


async def test_a_service_that_answers_nonsense_or_an_error_is_named(
    three: Clinic, bearer: Bearer, reply: type[Reply]
) -> None:
    three["patients"].replies = [reply(body=b"<html>")]
    three["scheduling"].replies = [reply(500, {"title": "x"})]
    answer = (await three.http.get("/v1/ops/ledger", headers=bearer())).json()
    assert {part["service"]: part["reason"] for part in answer["unreachable"]} == {
        "billing": "service-down",
        "patients": "not-json",
        "scheduling": "answered 500",
    }


@pytest.mark.parametrize(
    ("status", "kind"), [(403, "/problems/forbidden"), (422, "/problems/invalid-request")]
)
async def test_what_every_service_refuses_is_refused(
    three: Clinic, bearer: Bearer, reply: type[Reply], status: int, kind: str
) -> None:
    for name in ("patients", "scheduling"):
        three[name].replies = [reply(status, {"type": kind, "status": status})]
    answer = await three.http.get("/v1/ops/ledger", headers=bearer())
    assert (answer.status_code, answer.json()["type"]) == (status, kind)


async def test_operations_need_a_token(three: Clinic) -> None:
    assert (await three.http.get("/v1/ops/ledger")).status_code == 401
    assert three["patients"].seen == []


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/ops/dead-letters/scheduling/7/redrive?x=1", "/v1/ops/dead-letters/7/redrive?x=1"),
        ("/v1/ops/dead-letters/scheduling", "/v1/ops/dead-letters"),
        ("/v1/ops/intake/scheduling/0199/redrive", "/v1/ops/intake/0199/redrive"),
    ],
)
async def test_one_service_is_asked_in_its_own_words(
    three: Clinic, bearer: Bearer, path: str, target: str
) -> None:
    answer = await three.http.post(path, json={"cause": "x"}, headers=bearer())
    assert answer.json() == {"service": "scheduling"}
    assert three["scheduling"].seen[0].target == target
    assert three["patients"].seen == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/ops/dead-letters/audit/1", "not-installed"),
        ("/v1/ops/nothing", "unknown-path"),
        ("/v1/ops/intake", "unknown-path"),
    ],
)
async def test_other_operations_dont_exist(three: Clinic, bearer: Bearer, path: str, kind: str) -> None:
    answer = await three.http.get(path, headers=bearer())
    assert (answer.status_code, answer.json()["type"]) == (404, f"/problems/{kind}")
