"""The gateway against nginx, both one process, before the same upstream that does nothing."""

from datetime import UTC, datetime

from clinic_shared.auth import claims_of
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal

from .figures import Figure, needs_servers
from .nginx import nginx, wrk
from .servers import SECONDS, Bench

CONNECTIONS = 32
PUBLIC, WITH_TOKEN = "/v1/webhooks/messaging/bench", "/v1/slots"
# High enough to refuse nobody: it is counting that costs.
COUNTED = {"CLINIC_RATE_ADDRESS_PER_SECOND": "1000000", "CLINIC_RATE_SUBJECT_PER_SECOND": "1000000"}


@needs_servers
async def door(bench: Bench) -> list[Figure]:
    caller = Principal(subject=uuid7(), kind="staff", roles=frozenset({"registrar"}), network=True)
    token = bench.signer.sign(claims_of(caller, issued_at=datetime.now(UTC), lifetime_seconds=300))
    async with nginx() as upstream:
        straight = await wrk(f"http://{upstream}/", connections=1, seconds=SECONDS)
        async with nginx(proxy_to=upstream) as other:
            limit = await wrk(f"http://{other}/", connections=CONNECTIONS, seconds=SECONDS)
        services = f"notifications=http://{upstream},scheduling=http://{upstream}"
        async with bench.gateway(services) as url:
            open_door = await wrk(url + PUBLIC, connections=CONNECTIONS, seconds=SECONDS)
            alone = await wrk(url + PUBLIC, connections=1, seconds=SECONDS)
        async with bench.gateway(services, **COUNTED) as url:
            guarded = await wrk(url + WITH_TOKEN, connections=CONNECTIONS, seconds=SECONDS, token=token)
    return [
        Figure.ratio(
            "gateway against nginx, 32 connections, no token",
            ours=open_door.per_second,
            limit=limit.per_second,
            target=0.12,
        ),
        Figure.ratio(
            "gateway against nginx, with token check and rate limits",
            ours=guarded.per_second,
            limit=limit.per_second,
            target=0.08,
        ),
        Figure.ceiling(
            "added by the gateway at one connection, p50", alone.p50_ms - straight.p50_ms, "ms", target=1
        ),
    ]
