"""A patient who pays for visits and in advance, at the provider's, and gets a part of it back."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from clinic_local.api_client import Caller

from .books import PAYMENT
from .history import Answer, History
from .outside import REFUND
from .people import PATIENCE_SECONDS, Desk, NotAnsweredError, Patient, persist

DEPOSIT_MINOR, PART_MINOR = 10_000, 1_000


@dataclass
class Till:
    """A patient who pays for visits, at the provider's."""

    desk: Desk
    doctor: Caller
    biller: Caller
    payer: Patient
    patient: Caller
    provider_url: str
    history: History
    paid: list[str] = field(default_factory=list)
    """Payments that were made and not yet given back, the oldest first."""

    def visit(self) -> str:
        """Let the patient be seen; returns the id of the invoice for it."""
        appointment = self.desk.book(self.payer)["appointment_id"]
        for step in ("arrive", "complete"):
            self._do(self.doctor, f"/v1/appointments/{appointment}/{step}")
        return str(
            self._awaited(
                lambda: self.biller.items("/v1/invoices", appointment_id=appointment), what="invoice"
            )[0]["invoice_id"]
        )

    def deposit(self) -> str:
        """Ask the patient for money in advance; returns the id of what is to be paid."""
        network = self.desk.network
        asked = {
            "patient_id": self.payer.patient_id,
            "centre_id": network.centre_id,
            "department_id": network.departments["dermatology"],
            "amount_minor": DEPOSIT_MINOR,
        }
        return str(self._do(self.biller, "/v1/invoices/advances", asked)["invoice_id"])

    def start(self, invoice_id: str) -> str:
        """Ask to pay an invoice, or carry on with the payment that was begun; returns its id."""
        return str(self._do(self.patient, f"/v1/invoices/{invoice_id}/payments")["payment_id"])

    def pay(self, invoice_id: str, *, deliveries: int = 2) -> str:
        """Pay an invoice; the provider notifies so many times, out of order. Returns the payment's id."""
        payment = self.start(invoice_id)
        reference = self._awaited(
            lambda: self.biller.get(f"/v1/payments/{payment}")["provider_reference"], what="reference"
        )

        def pay() -> None:
            answer = httpx.post(
                f"{self.provider_url}/_control/stripe/{reference}/pay",
                json={"deliveries": deliveries, "reorder": True},
                trust_env=False,
                timeout=60,
            )
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise NotAnsweredError
            answer.raise_for_status()

        persist(self.history, {PAYMENT: [payment]}, pay)
        self.paid.append(payment)
        return payment

    def give_back(self) -> bool:
        """Give a part of the oldest payment back that has been made. Returns False when none has."""
        payment = self.paid[0] if self.paid else None
        if payment is None or self._read(payment)["status"] != "succeeded":
            return False
        part = {"amount_minor": PART_MINOR, "reason_code": "service-not-rendered"}
        refund = self._do(self.biller, f"/v1/payments/{payment}/refunds", part)["refund_id"]
        self.history.record(REFUND, str(refund), Answer.ACKED)
        self.paid.remove(payment)
        return True

    def forget_paid(self) -> None:
        """The provider has forgotten all payments: none of them can be given back."""
        self.paid.clear()

    def _read(self, payment: str) -> dict[str, Any]:
        return dict(persist(self.history, {}, lambda: self.biller.get(f"/v1/payments/{payment}")))

    def asked_for(self, payment_id: str) -> int:
        """Return how many payment intents the provider has for a payment of ours."""
        answer = httpx.get(f"{self.provider_url}/_control/stripe/events", trust_env=False, timeout=60)
        created = [e for e in answer.json()["items"] if e["type"] == "payment_intent.created"]
        return sum(e["data"]["object"]["metadata"].get("payment_id") == payment_id for e in created)

    def nothing_to_notify(self) -> bool:
        """Tell whether the vendors' stand-ins have delivered all that they had to tell."""
        answer = httpx.get(f"{self.provider_url}/_control/deliveries", trust_env=False, timeout=60)
        return not answer.raise_for_status().json()["pending"]

    def _do(self, caller: Caller, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        key = str(uuid.uuid4())

        def attempt() -> dict[str, Any]:
            answer = caller.send("POST", path, json=body or {}, headers={"Idempotency-Key": key})
            return dict(answer.json())

        return dict(persist(self.history, {}, attempt))

    def _awaited(self, ask: Callable[[], Any], *, what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := persist(self.history, {}, ask)):
            assert time.monotonic() < deadline, f"no {what}"
            time.sleep(0.1)
        return found
