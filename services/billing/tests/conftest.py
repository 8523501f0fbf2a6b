"""A till: one centre in Moscow with a priced service, patients who have been seen, and Stripe's notifications."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_billing.app import intake_worker, service
from clinic_billing.provider_calls import make_due_calls
from clinic_billing.providers.installed import Providers
from clinic_local.fakes.in_process import running_fakes, serving
from clinic_shared.app import create_app
from clinic_shared.auth import TokenSigner
from clinic_shared.ids import uuid7
from clinic_shared.ledger import Ledger
from clinic_shared.service import Runtime, Service
from clinic_shared.testing import (
    FixedClock,
    Servers,
    ServiceHarness,
    eventually,
    harness,
    service_fixture,
)
from sqlalchemy import Table, select, text
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

WEBHOOK = "/v1/webhooks/payments/stripe"
SECRET = "whsec_fictitious"
PRICE = 250_000
MUCH = 1_500_000

billing = service_fixture(service)


@dataclass
class StripeAsTold:
    """What Stripe answers when it is asked about a payment: what its notifications have said, by default."""

    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def learn(self, kind: str, subject: dict[str, Any]) -> None:
        if kind.startswith("payment_intent."):
            known = self.intents.get(subject["id"])
            if known is None or known["status"] != "succeeded":
                failed = {"status": "requires_payment_method"} if kind.endswith("payment_failed") else {}
                self.intents[subject["id"]] = subject | failed
        elif kind.startswith("refund."):
            self.refunds[subject["id"]] = subject

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            return httpx.Response(503)
        if request.url.path == "/v1/refunds":
            of = request.url.params["payment_intent"]
            return httpx.Response(
                200, json={"data": [r for r in self.refunds.values() if r["payment_intent"] == of]}
            )
        known = self.intents.get(request.url.path.rpartition("/")[2])
        return httpx.Response(404, json={"error": {}}) if known is None else httpx.Response(200, json=known)

    async def stand_in(self, runtime: Runtime) -> None:
        stripe = runtime.get(Providers)._stripe
        await stripe.aclose()
        stripe._http = httpx.AsyncClient(
            base_url="https://stripe.example", transport=httpx.MockTransport(self.answer)
        )


@dataclass
class Till:
    billing: ServiceHarness
    stripe: StripeAsTold = field(default_factory=StripeAsTold)
    centre_id: UUID = field(default_factory=uuid7)
    department_id: UUID = field(default_factory=uuid7)
    legal_entity_id: UUID = field(default_factory=uuid7)
    patient_id: UUID = field(default_factory=uuid7)

    # -- what comes from other services

    async def open_centre(self, **changes: Any) -> None:
        ids = {"centre_id": str(self.centre_id), "legal_entity_id": str(self.legal_entity_id)}
        await self.billing.deliver_example("identity.centre-opened.v1", **ids | changes)

    async def complete_visit(self, **changes: Any) -> UUID:
        appointment_id = uuid7()
        await self.deliver_visit("completed", appointment_id, **changes)
        return appointment_id

    async def deliver_visit(self, state: str, appointment_id: UUID, **changes: Any) -> None:
        known = {
            "appointment_id": str(appointment_id),
            "patient_id": str(self.patient_id),
            "centre_id": str(self.centre_id),
            "department_id": str(self.department_id),
        }
        await self.billing.deliver_example(f"scheduling.appointment-{state}.v1", **known | changes)

    async def order_tests(self, *codes: str, lab_order_id: UUID | None = None) -> UUID:
        lab_order_id = lab_order_id or uuid7()
        tests = [{"code": code, "system": "http://loinc.org", "display": None} for code in codes]
        await self.billing.deliver_example(
            "lab-integration.lab-order-placed.v1",
            lab_order_id=str(lab_order_id),
            patient_id=str(self.patient_id),
            centre_id=str(self.centre_id),
            department_id=str(self.department_id),
            tests=tests,
        )
        return lab_order_id

    async def cancel_order(self, lab_order_id: UUID) -> None:
        await self.billing.deliver_example(
            "lab-integration.lab-order-cancelled.v1", lab_order_id=str(lab_order_id)
        )

    # -- people

    def patient(self) -> dict[str, str]:
        principal = self.billing.principal("patient", patient_id=self.patient_id)
        return self.billing.headers(principal)

    def biller(self, **claims: Any) -> dict[str, str]:
        return self.billing.headers(self.billing.principal("biller", **claims))

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return await self.billing.http.get(path, params=query, headers=headers or self.biller())

    async def post(
        self, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return await self.billing.http.post(path, json=body or {}, headers=headers or self.biller())

    async def set_price(self, **changes: Any) -> httpx.Response:
        body = {
            "service_code": "dermatology-consultation",
            "centre_id": str(self.centre_id),
            "amount_minor": PRICE,
            "currency": "RUB",
            "valid_from": "2026-01-01",
        }
        return await self.post("/v1/prices", body | changes)

    async def invoice(self, **changes: Any) -> dict[str, Any]:
        """Return the invoice of a visit that has just been completed."""
        appointment_id = await self.complete_visit(**changes)
        [issued] = (await self.get("/v1/invoices", appointment_id=str(appointment_id))).json()["items"]
        return issued

    async def read_invoice(self, invoice_id: str) -> dict[str, Any]:
        return (await self.get(f"/v1/invoices/{invoice_id}")).json()

    async def start_payment(self, invoice_id: str, **body: Any) -> dict[str, Any]:
        answer = await self.post(f"/v1/invoices/{invoice_id}/payments", body, self.patient())
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def read_payment(self, payment_id: str) -> dict[str, Any]:
        return (await self.get(f"/v1/payments/{payment_id}")).json()

    async def paid(self) -> tuple[dict[str, Any], str]:
        """Return a payment that was received, and the provider's reference of it."""
        return await self.settle(await self.invoice())

    async def much(self) -> dict[str, Any]:
        """Return an invoice of more than one person may give away."""
        await self.set_price(amount_minor=MUCH, valid_from="2026-02-01")
        return await self.invoice()

    async def paid_much(self) -> tuple[dict[str, Any], str]:
        return await self.settle(await self.much())

    async def settle(self, invoice: dict[str, Any]) -> tuple[dict[str, Any], str]:
        payment = await self.start_payment(invoice["invoice_id"])
        intent = self.intent(payment)
        await self.notify("payment_intent.succeeded", intent)
        await self.process()
        return await self.read_payment(payment["payment_id"]), intent["id"]

    # -- the provider

    def intent(self, payment: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """Return a payment intent as Stripe describes it once it is paid."""
        amount = payment["amount_minor"] if payment else PRICE
        return {
            "id": f"pi_{uuid7().hex}",
            "object": "payment_intent",
            "amount": amount,
            "amount_received": amount,
            "currency": "rub",
            "status": "succeeded",
            "metadata": {"payment_id": payment["payment_id"]} if payment else {},
        } | changes

    def event(self, kind: str, subject: dict[str, Any], **changes: Any) -> dict[str, Any]:
        event = {"id": f"evt_{uuid7().hex}", "object": "event", "type": kind, "data": {"object": subject}}
        return event | changes

    def signed(self, body: bytes, *, secret: str = SECRET, age_seconds: int = 0) -> dict[str, str]:
        timestamp = int(self.billing.clock.now().timestamp()) - age_seconds
        digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        return {"stripe-signature": f"t={timestamp},v1={digest}", "content-type": "application/json"}

    async def send(self, event: Any, **signature: Any) -> httpx.Response:
        subject = event.get("data", {}).get("object", {}) if isinstance(event, dict) else {}
        if "id" in subject:
            self.stripe.learn(event["type"], subject)
        body = json.dumps(event).encode()
        headers = self.signed(body, **signature)
        return await self.billing.http.post(WEBHOOK, content=body, headers=headers)

    async def notify(self, kind: str, subject: dict[str, Any]) -> httpx.Response:
        answer = await self.send(self.event(kind, subject))
        assert answer.status_code == 200, answer.text
        return answer

    async def process(self) -> int:
        """Process every notification that is due, with what it asks of the provider; returns how many."""
        worker, processed = intake_worker(self.billing.runtime), 0
        while await worker.process_next():
            processed += 1
        while await make_due_calls(self.billing.runtime):
            continue
        return processed

    async def make_calls_due(self) -> None:
        """Let calls that wait for their next attempt be due now."""
        async with self.billing.runtime.database.transaction() as tx:
            await tx.execute(text("UPDATE provider_call SET next_attempt_at = now()"))

    async def dispositions(self, provider: str = "stripe") -> dict[str, int]:
        """Return how many notifications stand where, zeros left out; asserts that the sum is right."""
        async with self.billing.runtime.database.transaction() as tx:
            counted = await Ledger.of(self.billing.runtime).interfaces[provider](tx)
        assert counted.balanced, counted
        return {name: count for name, count in vars(counted).items() if count}

    # -- the books

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        async with self.billing.runtime.database.transaction() as tx:
            return [dict(row._mapping) for row in await tx.fetch_all(select(table))]

    async def assert_books_are_right(self) -> None:
        """Every movement sums to zero, and each invoice's receivable is its total less what was paid."""
        ledger = Ledger.of(self.billing.runtime)
        assert ledger.money is not None
        async with self.billing.runtime.database.transaction() as tx:
            assert await ledger.money(tx) == 0
            wrong = await tx.fetch_all(
                text(
                    "SELECT invoice_id, total_minor - paid_minor - written_off_minor, balance FROM invoice JOIN (SELECT account, "
                    "sum(amount_minor) AS balance FROM ledger_entry GROUP BY account) AS a "
                    "ON account = 'receivable:' || invoice_id WHERE balance <> total_minor - paid_minor - written_off_minor"
                )
            )
            assert list(wrong) == []


async def open_till(billing: ServiceHarness) -> Till:
    made = Till(billing)
    await made.open_centre()
    await billing.deliver_example("scheduling.service-defined.v1")
    assert (await made.set_price()).status_code == 201
    return made


@pytest.fixture
async def till(billing: ServiceHarness) -> Till:
    opened = await open_till(billing)
    await opened.stripe.stand_in(billing.runtime)
    return opened


@dataclass
class Provider:
    """The stand-in for Stripe, and billing as it reaches it over real HTTP."""

    till: Till
    http: httpx.AsyncClient

    async def call(self) -> int:
        """Make the calls that are due; returns how many."""
        return await make_due_calls(self.till.billing.runtime)

    async def make_due(self) -> None:
        await self.till.make_calls_due()

    async def started(self, **body: Any) -> dict[str, Any]:
        """Return a payment that the provider knows."""
        payment = await self.till.start_payment((await self.till.invoice())["invoice_id"], **body)
        await self.call()
        return await self.till.read_payment(payment["payment_id"])

    async def pay(self, payment: dict[str, Any], **options: Any) -> None:
        """Let the customer pay, and wait until every notification of it has been taken in and processed."""
        path = f"/_control/{payment['provider']}/{payment['provider_reference']}/pay"
        answer = await self.http.post(path, json=options)
        assert answer.status_code == 200, answer.text
        await self.quiet()

    async def quiet(self) -> None:
        async def is_quiet() -> bool:
            return bool((await self.http.get("/_control/deliveries")).json()["pending"] == 0)

        await eventually(is_quiet)
        await self.till.process()

    async def made_at(self, vendor: str) -> list[str]:
        """Return the references of all payments that a provider has."""
        if vendor == "stripe":
            events = (await self.http.get("/_control/stripe/events")).json()["items"]
            return [e["data"]["object"]["id"] for e in events if e["type"] == "payment_intent.created"]
        kind = "payments" if vendor == "yookassa" else "orders"
        return [made["id"] for made in (await self.http.get(f"/_control/{vendor}/{kind}")).json()["items"]]

    async def fail_next(self, **fault: Any) -> None:
        answer = await self.http.post("/_control/faults", json={"vendor": "stripe"} | fault)
        assert answer.status_code == 204, answer.text


class Door:
    """An address that exists before the application behind it, and after it."""

    app: ASGIApp

    def __init__(self) -> None:
        self._inside = 0
        self._shut = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._shut:
            await Response(status_code=503)(scope, receive, send)
            return
        self._inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._inside -= 1

    async def shut(self) -> None:
        """Let nobody in any more, and wait until everybody is out."""
        self._shut = True
        await eventually(lambda: self._inside == 0)


@pytest.fixture
async def provider(
    servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner
) -> AsyncIterator[Provider]:
    door = Door()
    # The stand-in signs with the time of day, as Stripe does.
    clock = FixedClock(datetime.now(UTC))
    async with (
        serving(door) as clinic_url,
        running_fakes(clinic_url, fakes_callback_delay_seconds=0) as fakes_url,
        harness(
            service,
            database_url=database_of(service),
            amqp_url=servers.amqp_url,
            signer=signer,
            clock=clock,
            payment_provider="stripe,yookassa,razorpay",
            stripe_base_url=fakes_url,
            yookassa_base_url=fakes_url,
            yookassa_shop_id="100001",
            yookassa_secret_key="fictitious-yookassa-key",
            razorpay_base_url=fakes_url,
            razorpay_key_id="rzp_test_fictitious",
            razorpay_key_secret="fictitious-razorpay-key",
            razorpay_webhook_secret="fictitious-razorpay-webhook",
            atol_base_url=fakes_url,
            atol_login="fictitious-atol-login",
            atol_password="fictitious-atol-password",
        ) as made,
        httpx.AsyncClient(base_url=fakes_url, trust_env=False) as http,
    ):
        door.app = create_app(service, made.runtime)
        provider = Provider(await open_till(made), http)
        yield provider
        # What is still on its way must not meet a database that is being taken down.
        await provider.quiet()
        await door.shut()
