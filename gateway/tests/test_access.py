from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from clinic_gateway.tokens import Revocations
from clinic_shared.contracts import CONTRACTS_DIR
from clinic_shared.principal import Principal
from clinic_shared.testing import Servers, eventually

Publish = Callable[[bytes], Awaitable[None]]

if TYPE_CHECKING:
    from .conftest import Bearer, Clinic, Reply, StartClinic


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer x.y.z", "Basic bGFiOng=", "Digest x"])
async def test_without_a_valid_token_nothing_reaches_a_service(clinic: Clinic, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = await clinic.http.get("/v1/patients", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert clinic["patients"].seen == []


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/v1/auth/login", "identity"),
        ("/v1/auth/refresh", "identity"),
        ("/v1/auth/otp", "identity"),
        ("/v1/webhooks/payments/stripe", "billing"),
        ("/v1/webhooks/messaging/whatsapp", "notifications"),
    ],
)
async def test_public_paths_need_no_token(clinic: Clinic, path: str, service: str) -> None:
    assert (await clinic.http.post(path, json={})).json() == {"service": service}


async def test_logging_out_needs_a_token(clinic: Clinic) -> None:
    assert (await clinic.http.post("/v1/auth/logout", json={})).status_code == 401


async def test_a_webhooks_raw_body_and_signature_arrive_unchanged(clinic: Clinic) -> None:
    body, signature = b'{"a":  "\\/"}\n', "t=1,v1=abc"
    headers = {"stripe-signature": signature, "content-type": "application/json; charset=utf-8"}
    await clinic.http.post("/v1/webhooks/payments/stripe", content=body, headers=headers)
    (seen,) = clinic["billing"].seen
    assert (seen.body, seen.header("stripe-signature")) == (body, signature)


async def test_a_laboratory_may_use_basic(clinic: Clinic) -> None:
    headers = {"authorization": "Basic bGFiOng=", "content-type": "x-application/hl7-v2+er7"}
    await clinic.http.post("/v1/lab/messages", content=b"MSH|", headers=headers)
    assert clinic["lab-integration"].seen[0].header("authorization") == "Basic bGFiOng="


async def test_a_laboratory_without_credentials_is_refused(clinic: Clinic) -> None:
    answer = await clinic.http.post(
        "/v1/lab/messages", content=b"MSH|", headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 401
    assert clinic["lab-integration"].seen == []


async def test_a_laboratorys_bad_token_is_refused(clinic: Clinic) -> None:
    headers = {"authorization": "Bearer x.y.z", "content-type": "text/plain"}
    assert (await clinic.http.post("/v1/lab/messages", content=b"MSH|", headers=headers)).status_code == 401


async def test_a_revoked_session_ends_at_once(clinic: Clinic, bearer: Bearer) -> None:
    session = uuid4()
    headers = bearer(session_id=session)
    assert (await clinic.http.get("/v1/me", headers=headers)).status_code == 200
    clinic.revocations.revoke_session(session, until=in_five_minutes())
    assert (await clinic.http.get("/v1/me", headers=headers)).status_code == 401
    assert (await clinic.http.get("/v1/me", headers=bearer(session_id=uuid4()))).status_code == 200


async def test_a_revoked_account_keeps_only_the_tokens_that_come_after(
    clinic: Clinic, bearer: Bearer
) -> None:
    subject = uuid4()
    before = bearer(subject=subject)
    clinic.revocations.revoke_account(
        subject, issued_before=datetime.now(UTC) + timedelta(seconds=2), until=in_five_minutes()
    )
    assert (await clinic.http.get("/v1/me", headers=before)).status_code == 401
    assert (await clinic.http.get("/v1/me", headers=bearer())).status_code == 200
    clinic.revocations.revoke_account(
        subject, issued_before=datetime.now(UTC) - timedelta(seconds=2), until=in_five_minutes()
    )
    assert (await clinic.http.get("/v1/me", headers=bearer(subject=subject))).status_code == 200


def test_revocations_are_forgotten_when_their_tokens_have_expired() -> None:
    revocations, session = Revocations(), uuid4()
    revocations.revoke_session(session, until=datetime.now(UTC) - timedelta(seconds=1))
    revocations.revoke_session(uuid4(), until=in_five_minutes())
    assert not revocations.cover(Principal(subject=uuid4(), kind="staff", session_id=session), "")


@pytest.mark.servers
async def test_a_session_ended_at_identity_ends_here(
    start_clinic: StartClinic, bearer: Bearer, vhost: Servers, identity_exchange: Publish
) -> None:
    async with start_clinic("identity", amqp_url=vhost.amqp_url, contracts_dir=CONTRACTS_DIR) as clinic:
        session, subject = uuid4(), uuid4()
        headers = [bearer(session_id=session), bearer(subject=subject), bearer()]
        await eventually(lambda: says(clinic, []))
        later = datetime.now(UTC) + timedelta(seconds=2)
        await identity_exchange(b"{}")
        await identity_exchange(revocation(uuid4(), session, later))
        await identity_exchange(revocation(subject, None, later))
        await eventually(lambda: statuses(clinic, headers, [401, 401, 200]))


@pytest.mark.servers
async def test_without_a_broker_the_gateway_works_and_says_so(
    start_clinic: StartClinic, bearer: Bearer
) -> None:
    async with start_clinic("identity", amqp_url="amqp://127.0.0.1:1", contracts_dir=CONTRACTS_DIR) as clinic:
        assert (await clinic.http.get("/v1/me", headers=bearer())).status_code == 200
        answer = await clinic.http.get("/readyz")
        assert (answer.status_code, answer.json()["reasons"]) == (
            200,
            ["revocations: the broker is unavailable", "stream: the broker is unavailable"],
        )


def in_five_minutes() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=5)


def revocation(principal_id: UUID, session_id: UUID | None, issued_before: datetime) -> bytes:
    data = {
        "principal_id": str(principal_id),
        "principal_kind": "staff",
        "session_id": str(session_id) if session_id else None,
        "issued_before": issued_before.isoformat(),
        "expires_at": in_five_minutes().isoformat(),
        "reason_code": "logout",
    }
    return json.dumps({"data": data}).encode()


async def says(clinic: Clinic, reasons: list[str]) -> bool:
    answer = await clinic.http.get("/readyz")
    return (answer.status_code, answer.json()["reasons"]) == (200, reasons)


async def statuses(clinic: Clinic, headers: list[dict[str, str]], expected: list[int]) -> bool:
    answers = [await clinic.http.get("/v1/me", headers=one) for one in headers]
    return [answer.status_code for answer in answers] == expected


@pytest.fixture
async def identity_exchange(vhost: Servers) -> AsyncIterator[Publish]:
    connection = await aio_pika.connect(vhost.amqp_url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("identity.events", "topic", durable=True)

        async def publish(body: bytes) -> None:
            await exchange.publish(aio_pika.Message(body), "identity.session-revoked.v1", mandatory=True)

        yield publish


async def test_keys_are_read_from_identity_and_outlive_it(
    start_clinic: StartClinic, bearer: Bearer, reply: type[Reply], jwks: dict[str, Any]
) -> None:
    async with start_clinic("identity", "scheduling", verifier=None) as clinic:
        clinic["identity"].pages["/.well-known/jwks.json"] = reply(document=jwks)
        assert (await clinic.http.get("/v1/slots", headers=bearer())).status_code == 200
        clinic["identity"].pages["/.well-known/jwks.json"] = reply(503, {})
        assert (await clinic.http.get("/v1/slots", headers=bearer())).status_code == 200


async def test_while_no_keys_are_known_the_caller_is_asked_to_come_back(
    start_clinic: StartClinic, bearer: Bearer
) -> None:
    async with start_clinic("scheduling", down=("identity",), verifier=None) as clinic:
        answer = await clinic.http.get("/v1/slots", headers=bearer())
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/temporarily-unavailable")
        assert clinic["scheduling"].seen == []


async def test_one_address_cant_flood(start_clinic: StartClinic) -> None:
    async with start_clinic("identity", rate_address_per_second=5, rate_burst_seconds=1) as clinic:
        answers = [await clinic.http.get("/.well-known/jwks.json") for _ in range(7)]
        assert [answer.status_code for answer in answers].count(429) >= 1
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["type"] == "/problems/too-many-requests"
        assert int(refused.headers["retry-after"]) >= 1


async def test_one_account_cant_flood_whatever_its_tokens(start_clinic: StartClinic, bearer: Bearer) -> None:
    async with start_clinic("identity", rate_subject_per_second=2, rate_burst_seconds=1) as clinic:
        subject = uuid4()
        answers = [await clinic.http.get("/v1/me", headers=bearer(subject=subject)) for _ in range(4)]
        assert 429 in [answer.status_code for answer in answers]
        assert (await clinic.http.get("/v1/me", headers=bearer())).status_code == 200


async def test_guessing_passwords_is_slowed_down(start_clinic: StartClinic) -> None:
    async with start_clinic("identity", rate_sign_in_per_second=1, rate_sign_in_burst=3) as clinic:
        answers = [await clinic.http.post("/v1/auth/login", json={}) for _ in range(5)]
        assert [answer.status_code for answer in answers][:3] == [200, 200, 200]
        assert 429 in [answer.status_code for answer in answers]
        assert len(clinic["identity"].seen) < 5


async def test_a_forged_forwarded_address_doesnt_help(start_clinic: StartClinic) -> None:
    async with start_clinic("identity", rate_address_per_second=2, rate_burst_seconds=1) as clinic:
        statuses = [
            (
                await clinic.http.get("/.well-known/jwks.json", headers={"x-forwarded-for": f"10.0.0.{n}"})
            ).status_code
            for n in range(5)
        ]
        assert 429 in statuses


async def test_behind_a_trusted_proxy_its_callers_are_told_apart(start_clinic: StartClinic) -> None:
    limits = {"rate_address_per_second": 1, "rate_burst_seconds": 1, "trusted_hops": 1}
    async with start_clinic("identity", **limits) as clinic:
        statuses = [
            (
                await clinic.http.get(
                    "/.well-known/jwks.json", headers={"x-forwarded-for": f"6.6.6.6, 10.0.0.{n}"}
                )
            ).status_code
            for n in range(5)
        ]
        assert statuses == [200] * 5
        assert clinic["identity"].seen[0].header("x-forwarded-for") == "10.0.0.0"
