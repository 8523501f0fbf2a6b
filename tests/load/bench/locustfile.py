"""Those who use the platform all day, as Locust users: reception, patients' phones, laboratories, payers.

`make load` prepares who they are and runs them; `CLINIC_LOAD_CAST` names the file with the cast.
"""

import json
import os
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from locust import HttpUser, between, task

CAST: dict[str, Any] = json.loads(Path(os.environ["CLINIC_LOAD_CAST"]).read_text(encoding="utf-8"))
PATIENCE_SECONDS = 60
OK = 200
TO_COME_AGAIN = {409, 429, 503}
"""With Retry-After: a reference is still on its way to the service, or so many at once can't be served."""
_SLOTS_A_DAY = 24
_numbers = count(CAST["first_number"])


class Somebody(HttpUser):
    """Signs in, thinks between two journeys, and gives each write an Idempotency-Key."""

    abstract = True
    wait_time = between(0.5, 1.5)

    def on_start(self) -> None:
        self.client.trust_env = False  # loopback: a proxy of the machine has nothing to do here

    def signed_in(self, who: dict[str, str]) -> dict[str, str]:
        credentials = {"login": who["login"], "password": who["password"]}
        while True:
            with self.client.post("/v1/auth/login", json=credentials, catch_response=True) as answer:
                answer.success()  # so many sign-ins at once that some are to come again are no failure
            # Not `ok`, which Locust overrules with what was reported to it.
            if answer.status_code == OK:
                return {"Authorization": f"Bearer {answer.json()['access_token']}"}
            time.sleep(float(answer.headers["Retry-After"]))

    def read(self, name: str, path: str, headers: dict[str, str], **query: str) -> Any:
        return self.asked("GET", path, name, params=query, headers=headers).json()

    def write(self, name: str, path: str, headers: dict[str, str], body: Any) -> Any:
        keyed = {**headers, "Idempotency-Key": str(uuid.uuid4())}
        return self.asked("POST", path, name, json=body, headers=keyed).json()

    def asked(self, method: str, path: str, name: str, **request: Any) -> Any:
        """Ask, and come again when told to; how often that was is counted as a step of its own."""
        while True:
            with self.client.request(method, path, name=name, catch_response=True, **request) as answer:
                if answer.status_code not in TO_COME_AGAIN or "Retry-After" not in answer.headers:
                    return answer
                answer.request_meta["name"] = name + CAST["again"]
                answer.success()
            time.sleep(float(answer.headers["Retry-After"]))

    def book(self, headers: dict[str, str], patient_id: str) -> str:
        booking = {**CAST["visit"], "patient_id": patient_id, "starts_at": _slot(next(_numbers)).isoformat()}
        return str(self.write("book a visit", "/v1/appointments", headers, booking)["appointment_id"])


class Reception(Somebody):
    """Looks for a patient, doesn't find one, registers, shows free times, books."""

    fixed_count = CAST["users"]["Reception"]

    def on_start(self) -> None:
        super().on_start()
        self.headers = self.signed_in(CAST["registrar"])

    @task
    def receive(self) -> None:
        phone = f"+7000{next(_numbers):07d}"
        self.read("look for a patient", "/v1/patients", self.headers, phone=phone)
        registration = {**CAST["registration"], "phones": [phone]}
        patient = self.write("register a patient", "/v1/patients", self.headers, registration)
        soon = datetime.now(UTC) + timedelta(days=1)
        self.read(
            "free times",
            "/v1/slots",
            self.headers,
            service_id=CAST["visit"]["service_id"],
            centre_id=CAST["visit"]["centre_id"],
            department_id=CAST["visit"]["department_id"],
            starts_at=soon.isoformat(),
            ends_at=(soon + timedelta(days=7)).isoformat(),
            limit="20",
        )
        self.book(self.headers, patient["patient_id"])


class Phone(Somebody):
    """A patient's app: what is next, what has come, what is to be paid."""

    fixed_count = CAST["users"]["Phone"]

    def on_start(self) -> None:
        super().on_start()
        self.patient = random.choice(CAST["patients"])  # which patient is no secret
        self.headers = self.signed_in(self.patient)

    @task
    def look(self) -> None:
        patient_id = self.patient["patient_id"]
        self.read("my visits", "/v1/appointments", self.headers, patient_id=patient_id)
        self.read("my timeline", f"/v1/patients/{patient_id}/timeline", self.headers)
        self.read("my invoices", "/v1/invoices", self.headers, patient_id=patient_id)


class Laboratory(Somebody):
    """Sends a panel of results and awaits its acknowledgement."""

    fixed_count = CAST["users"]["Laboratory"]

    @task
    def report(self) -> None:
        key = uuid.uuid4().hex
        patient = random.choice(CAST["patients"])
        message = (
            CAST["panel"]
            .replace("PANEL-0001", key[:20])
            .replace("PATIENT-NUMBER", patient["record_number"])
            .replace("ORDER-NUMBER^POLYCLINIC", "")
            .replace("FILLER-0001", key)
        )
        with self.client.post(
            "/v1/lab/messages",
            data=message.encode(),
            headers={"Content-Type": "application/hl7-v2"},
            auth=(CAST["lab"]["login"], CAST["lab"]["password"]),
            name="send results",
            catch_response=True,
        ) as answer:
            if "\rMSA|AA|" not in answer.text:
                answer.failure("not accepted")


class Payer(Somebody):
    """Comes to a visit, is seen, and pays at the provider's, who tells us twice."""

    fixed_count = CAST["users"]["Payer"]

    def on_start(self) -> None:
        super().on_start()
        self.patient = random.choice(CAST["patients"])
        self.headers = self.signed_in(self.patient)
        self.registrar = self.signed_in(CAST["registrar"])
        self.doctor = self.signed_in(CAST["doctor"])

    @task
    def pay(self) -> None:
        appointment = self.book(self.registrar, self.patient["patient_id"])
        for step in ("arrive", "complete"):
            self.write(step, f"/v1/appointments/{appointment}/{step}", self.doctor, {})
        invoice = self._awaited(appointment)
        payment = self.write("pay", f"/v1/invoices/{invoice}/payments", self.headers, {})["payment_id"]
        self._at_the_provider(payment)
        self._until("paid", lambda: self._status(invoice) == "paid")

    def _awaited(self, appointment: str) -> str:
        found: list[str] = []

        def invoiced() -> bool:
            invoices = self.read(
                "is it invoiced", "/v1/invoices", self.headers, patient_id=self.patient["patient_id"]
            )
            found.extend(i["invoice_id"] for i in invoices["items"] if i["appointment_id"] == appointment)
            return bool(found)

        self._until("invoiced", invoiced)
        return found[0]

    def _status(self, invoice: str) -> str:
        return str(self.read("is it paid", f"/v1/invoices/{invoice}", self.headers)["status"])

    def _at_the_provider(self, payment: str) -> None:
        references: list[str] = []

        def known() -> bool:
            reference = self.read("payment", f"/v1/payments/{payment}", self.headers)["provider_reference"]
            references.extend([reference] if reference else [])
            return bool(references)

        self._until("known to the provider", known)
        self.client.post(
            f"{CAST['fakes']}/_control/stripe/{references[0]}/pay",
            json={"deliveries": 2, "reorder": True},
            name="(the provider)",
        )

    def _until(self, what: str, check: Any) -> None:
        """Ask until it is so, and report how long that took as a measurement of its own."""
        begun = time.monotonic()
        failure: Exception | None = None
        while not check():
            if time.monotonic() - begun > PATIENCE_SECONDS:
                failure = TimeoutError(what)
                break
            time.sleep(0.1)
        self.environment.events.request.fire(
            request_type="WAIT",
            name=what,
            response_time=1000 * (time.monotonic() - begun),
            response_length=0,
            exception=failure,
            context={},
        )
        if failure is not None:
            raise failure


def _slot(number: int) -> datetime:
    """Return the start of the n-th half hour within the demo network's hours, from the day after tomorrow on."""
    day, place = divmod(number, _SLOTS_A_DAY)
    opening = datetime.now(ZoneInfo("Europe/Moscow")).replace(hour=8, minute=0, second=0, microsecond=0)
    return (opening + timedelta(days=2 + day, minutes=30 * place)).astimezone(UTC)
