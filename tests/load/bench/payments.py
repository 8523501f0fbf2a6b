"""Payment notifications: how long a provider waits for its acknowledgement while they arrive at a steady rate."""

import asyncio
import hashlib
import hmac
import json
import time

import aiohttp
from clinic_billing.app import service as billing

from .figures import Figure, needs_servers
from .servers import SECONDS, Bench

PER_SECOND = 100
SECRET = "whsec_of-this-bench"  # known to this process and the one it starts


@needs_servers
async def payment_notifications(bench: Bench) -> list[Figure]:
    """Open loop: a notification is due at its time, whether or not the ones before it were answered."""
    bench.prepare(billing)
    settings = {"CLINIC_STRIPE_SECRET_KEY": "sk_live_of-this-bench", "CLINIC_STRIPE_WEBHOOK_SECRET": SECRET}
    async with bench.api(billing, **settings) as url, aiohttp.ClientSession() as http:
        await _arriving(http, url, first=0, count=2 * PER_SECOND)
        waits = await _arriving(http, url, first=2 * PER_SECOND, count=int(SECONDS * PER_SECOND))
    p99 = sorted(waits)[int(len(waits) * 0.99)] * 1000
    name = f"payment notification acknowledged at {PER_SECOND}/s, p99"
    return [Figure.ceiling(name, p99, "ms", target=100)]


async def _arriving(http: aiohttp.ClientSession, url: str, *, first: int, count: int) -> list[float]:
    began = time.monotonic()

    async def at_its_time(number: int) -> float:
        due = began + number / PER_SECOND
        await asyncio.sleep(max(0, due - time.monotonic()))
        body, signature = _notification(first + number)
        headers = {"content-type": "application/json", "stripe-signature": signature}
        async with http.post(f"{url}/v1/webhooks/payments/stripe", data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        return time.monotonic() - due

    return await asyncio.gather(*(at_its_time(number) for number in range(count)))


def _notification(number: int) -> tuple[bytes, str]:
    intent = {"id": f"pi_bench{number}", "object": "payment_intent", "status": "succeeded"}
    event = {
        "id": f"evt_bench{number}",
        "type": "payment_intent.succeeded",
        "data": {"object": intent},
        "padding": "x" * 2000,
    }
    body, now = json.dumps(event).encode(), int(time.time())
    digest = hmac.new(SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return body, f"t={now},v1={digest}"
