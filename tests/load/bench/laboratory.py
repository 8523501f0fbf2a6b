"""Laboratory messages: acknowledged by lab-integration, against pgbench inserting the same bytes."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import aiohttp
from clinic_lab_integration import partners
from clinic_lab_integration.app import service as lab_integration
from clinic_lab_integration.hl7.framing import END, frame
from clinic_lab_integration.models import PartnerRequest
from clinic_local.paths import CHECKOUT
from clinic_local.ports import LOOPBACK, free_port
from clinic_shared.auth import claims_of
from clinic_shared.consumer import apply
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .figures import Figure, needs_servers
from .servers import CLIENTS, Bench, rate_of


@needs_servers
async def lab_messages(bench: Bench) -> list[Figure]:
    bench.prepare(lab_integration)
    partner = uuid7()
    caller = Principal(
        subject=partner,
        kind="client",
        roles=frozenset({"lab"}),
        scopes=frozenset({"lab-messages.send"}),
    )
    claims = claims_of(caller, issued_at=datetime.now(UTC), lifetime_seconds=300, client_id=str(partner))
    headers = {
        "Authorization": f"Bearer {bench.signer.sign(claims)}",
        "Content-Type": "application/hl7-v2",
    }
    await register_partner(bench, partner)
    message_of = messages()
    async with bench.api(lab_integration) as url:

        async def post(http: aiohttp.ClientSession, number: int) -> None:
            message = message_of(number)
            async with http.post(f"{url}/v1/lab/messages", data=message, headers=headers) as answer:
                body = await answer.read()
                assert b"MSA|AA|" in body, body

        ours = await rate_of(post)
    limit = bench.pgbench(lab_integration, "intake.sql")
    name = "lab messages acknowledged, against pgbench inserting the same bytes"
    return [Figure.ratio(name, ours=ours, limit=limit, target=0.25)]


@needs_servers
async def lab_messages_over_mllp(bench: Bench) -> list[Figure]:
    bench.prepare(lab_integration)
    partner, port = uuid7(), free_port()
    await register_partner(bench, partner)
    async with bench.runtime(lab_integration) as runtime, runtime.database.transaction() as tx:
        command = PartnerRequest(mllp_peers=[LOOPBACK]).command()
        await partners.configure(tx, partner, command, expected_version=None)
    message_of = messages()
    async with bench.api(lab_integration, CLINIC_MLLP_PORT=str(port)):
        # As a laboratory does: a connection that stays, and no message before the last one's answer.
        idle = [await asyncio.open_connection(LOOPBACK, port) for _ in range(CLIENTS)]

        async def send(_: aiohttp.ClientSession, number: int) -> None:
            reader, writer = connection = idle.pop()
            writer.write(frame(message_of(number)))
            answer = await reader.readuntil(END)
            assert b"MSA|AA|" in answer, answer
            idle.append(connection)

        ours = await rate_of(send)
        for _, writer in idle:
            writer.close()
    limit = bench.pgbench(lab_integration, "intake.sql")
    name = "lab messages acknowledged over MLLP, against pgbench inserting the same bytes"
    return [Figure.ratio(name, ours=ours, limit=limit, target=0.25)]


def messages() -> Callable[[int], bytes]:
    """Messages of ten results that differ in their control id."""
    sample = (CHECKOUT / "contracts" / "hl7" / "panel.hl7").read_bytes()
    header, _, rest = sample.partition(b"\r")
    fields = header.split(b"|")

    def message_of(number: int) -> bytes:
        return b"\r".join((b"|".join([*fields[:9], f"BENCH{number}".encode(), *fields[10:]]), rest))

    return message_of


async def register_partner(bench: Bench, partner: UUID) -> None:
    """Tell lab-integration of a lab, as identity's event does."""
    now = datetime.now(UTC)
    data = {
        "partner_id": str(partner),
        "version": 1,
        "client_id": str(partner),
        "name": "Bench",
        "active": True,
        "registered_at": now.isoformat().replace("+00:00", "Z"),
    }
    envelope = Envelope(
        id=uuid7(),
        source="identity",
        type="identity.lab-registered.v1",
        subject=partner,
        time=now,
        recorded_at=now,
        aggregate_version=1,
        partition_key=partner,
        correlation_id=uuid7(),
    )
    async with bench.runtime(lab_integration) as runtime:
        await apply(runtime, envelope, encode_body(data, {"secret_digests": []}))
