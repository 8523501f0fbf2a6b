"""What was revoked is known from the start, without the broker, and by every replica; unknown, nothing changes."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from clinic_gateway import revocation_view
from clinic_gateway.tokens import Revocation
from clinic_shared import contracts
from clinic_shared.contracts import CONTRACTS_DIR
from clinic_shared.testing import Servers, eventually

from .conftest import Bearer, Clinic, Reply, StartClinic

BODY: dict[str, Any] = {"json": {}}


def told(*sessions: UUID) -> Reply:
    later = datetime.now(UTC) + timedelta(minutes=5)
    return Reply(
        document={
            "revocations": [
                {
                    "principal_id": str(uuid4()),
                    "principal_kind": "staff",
                    "session_id": str(session),
                    "issued_before": datetime.now(UTC).isoformat(),
                    "expires_at": later.isoformat(),
                    "reason_code": "logout",
                }
                for session in sessions
            ]
        }
    )


async def status(clinic: Clinic, headers: dict[str, str], method: str = "GET") -> int:
    more: dict[str, Any] = BODY if method == "POST" else {}
    return (await clinic.http.request(method, "/v1/sessions", headers=headers, **more)).status_code


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_view, "PULL_SECONDS", 0.02)
    monkeypatch.setattr(revocation_view, "RETRY_SECONDS", 0.02)


def test_identitys_event_is_what_the_view_takes() -> None:
    for example in contracts.examples("identity.session-revoked.v1"):
        Revocation.model_validate(example["data"])


async def test_what_ended_before_this_replica_began_is_known_from_its_first_request(
    start_clinic: StartClinic, bearer: Bearer
) -> None:
    session = uuid4()
    async with start_clinic("identity", revoked=told(session)) as clinic:
        assert await status(clinic, bearer(session_id=session)) == 401
        assert await status(clinic, bearer(session_id=uuid4())) == 200


@pytest.mark.usefixtures("soon")
async def test_without_a_broker_every_replica_asks_identity(
    start_clinic: StartClinic, bearer: Bearer
) -> None:
    async with (
        start_clinic("identity", amqp_url="amqp://127.0.0.1:1", contracts_dir=CONTRACTS_DIR) as one,
        start_clinic("identity", amqp_url="amqp://127.0.0.1:1", contracts_dir=CONTRACTS_DIR) as two,
    ):
        session = uuid4()
        headers = bearer(session_id=session)
        for replica in (one, two):
            assert await status(replica, headers) == 200
            replica["identity"].pages[revocation_view.PATH] = told(session)
        for replica in (one, two):

            async def is_refused(replica: Clinic = replica) -> bool:
                return await status(replica, headers) == 401

            await eventually(is_refused, within_seconds=60)


@pytest.mark.usefixtures("soon")
async def test_while_nobody_tells_what_ended_reading_goes_on_and_nothing_is_changed(
    start_clinic: StartClinic, bearer: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_clinic("identity", amqp_url="amqp://127.0.0.1:1", contracts_dir=CONTRACTS_DIR) as clinic:
        assert await status(clinic, bearer(), "POST") == 200
        monkeypatch.setattr(revocation_view, "STALE_SECONDS", 0)
        clinic["identity"].pages[revocation_view.PATH] = Reply(503, {})

        async def is_closed() -> bool:
            return await status(clinic, bearer(), "POST") == 503

        await eventually(is_closed, within_seconds=60)
        answer = await clinic.http.post("/v1/sessions", headers=bearer(), **BODY)
        assert answer.json()["type"] == "/problems/revocations-unknown"
        assert int(answer.headers["Retry-After"]) > 0
        assert await status(clinic, bearer()) == 200
        login = await clinic.http.post("/v1/auth/login", **BODY)
        assert login.status_code == 200  # a login needs no earlier session
        monkeypatch.setattr(revocation_view, "STALE_SECONDS", 15)
        clinic["identity"].pages[revocation_view.PATH] = told()

        async def is_open() -> bool:
            return await status(clinic, bearer(), "POST") == 200

        await eventually(is_open, within_seconds=60)


@pytest.mark.servers
@pytest.mark.usefixtures("soon")
async def test_while_the_broker_is_heard_identitys_silence_closes_nothing(
    start_clinic: StartClinic, bearer: Bearer, vhost: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await aio_pika.connect(vhost.amqp_url) as connection:
        await (await connection.channel()).declare_exchange("identity.events", "topic", durable=True)
    async with start_clinic("identity", amqp_url=vhost.amqp_url, contracts_dir=CONTRACTS_DIR) as clinic:

        async def listens() -> bool:
            reasons = (await clinic.http.get("/readyz")).json()["reasons"]
            return not [reason for reason in reasons if reason.startswith("revocations:")]

        await eventually(listens, within_seconds=60)
        clinic["identity"].pages[revocation_view.PATH] = Reply(503, {})
        monkeypatch.setattr(revocation_view, "STALE_SECONDS", 0)

        async def is_told() -> bool:
            reasons = (await clinic.http.get("/readyz")).json()["reasons"]
            return any(reason.startswith("revocation-pull") for reason in reasons)

        await eventually(is_told, within_seconds=60)
        assert await status(clinic, bearer(), "POST") == 200


async def test_what_identity_says_in_another_form_is_told_and_changes_nothing(
    start_clinic: StartClinic, bearer: Bearer
) -> None:
    async with start_clinic("identity", revoked=Reply(document={"sessions": []})) as clinic:
        assert await status(clinic, bearer()) == 200
        reasons = (await clinic.http.get("/readyz")).json()["reasons"]
        assert reasons == ["revocation-pull: failed with ValidationError"]
