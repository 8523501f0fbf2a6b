"""One patient's journey on the running system, told step by step, and what must be true at its end.

Everything goes through the gateway's public API, but for two acts of the outside world: the customer
pays at the provider's stand-in, and a service is killed.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from clinic_local.api_client import ApiError, Caller
from clinic_local.demo_network import PRICE_MINOR, Network
from clinic_local.paths import CHECKOUT
from clinic_local.state import RunState

PATIENCE_SECONDS = 90
"""On a busy machine: a broker alone may take half a minute to give a dead consumer's queue to the next."""
EARLIEST = timedelta(hours=1)
"""Who books now doesn't come within the hour: a slot that begins at once would be over before it is booked."""
SAMPLES = CHECKOUT / "contracts" / "hl7"
HL7 = "application/hl7-v2"


class JourneyError(Exception):
    """Something didn't come about."""


@dataclass
class Journey:
    network: Network
    url: str
    fakes_url: str
    root: Path
    console: Console
    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    patient_id: str = ""
    identifier: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def caller(self, person: str) -> Caller:
        """Return a member of staff; each logs in once."""
        if person not in self._callers:
            self._callers[person] = Caller(self.url, self.network.login_of(person), self.network.password)
        return self._callers[person]

    def __post_init__(self) -> None:
        self._callers: dict[str, Caller] = {}

    # -- telling

    def chapter(self, title: str) -> None:
        self.console.print(f"\n[bold]{title}[/bold]")

    def tell(self, text: str) -> None:
        elapsed = time.monotonic() - self.started
        self.console.print(f"  [dim]{elapsed:6.1f} s[/dim]  {text}")

    def event(self, name: str, subject: str) -> None:
        self.tell(f"[cyan]{name}[/cyan] [dim]{subject}[/dim]")

    def check(self, claim: str, *, holds: bool, shown: object) -> None:
        self.checks.append((claim, holds, str(shown)))

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[Callable[[Callable[[], Any]], Any]]:
        """Give a function that asks until the answer is truthy; says how long it took."""

        def wait(ask: Callable[[], Any]) -> Any:
            begun = time.monotonic()
            while True:
                answer = ask()
                if answer:
                    self.tell(f"{what} [dim](after {time.monotonic() - begun:.2f} s)[/dim]")
                    return answer
                if time.monotonic() - begun > PATIENCE_SECONDS:
                    raise JourneyError(f"{what}: not within {PATIENCE_SECONDS} s")
                time.sleep(0.1)

        yield wait

    # -- the journey

    def travel(self) -> bool:
        """Tell the whole journey; returns whether everything that must hold does."""
        self.register()
        appointment = self.visit("dermatology", "dermatologist")
        self.pay(appointment)
        self.refer()
        self.laboratory()
        self.kill_and_continue()
        self.report()
        self.account()
        return self.conclude()

    def register(self) -> None:
        self.chapter("1. A patient registers")
        number = random.randrange(10**7)  # noqa: S311  # a fictitious phone number
        patient = self.caller("registrar").post(
            "/v1/patients",
            {
                "centre_id": self.network.centre_id,
                "name": {"family": "Тестова", "given": "Анна", "patronymic": "Примеровна"},
                "birth_on": "1990-01-01",
                "sex": "female",
                "phones": [f"+7000{number:07d}"],
                "emails": [f"anna.testova.{number}@example.org"],
                "language": "ru",
            },
        )
        self.patient_id = patient["patient_id"]
        self.identifier = next(i for i in patient["identifiers"] if i["type"] == "MR")
        self.event("PatientRegistered", self.patient_id)
        self.tell(f"record number {self.identifier['value']} of {self.identifier['authority']}")

    def visit(self, department: str, person: str, referral_id: str | None = None) -> dict[str, Any]:
        """Book the next free slot, hear of the confirmation, arrive, be seen."""
        self.chapter(f"A visit in {department}")
        registrar = self.caller("registrar")
        now = datetime.now(UTC)
        place = {"centre_id": self.network.centre_id, "department_id": self.network.departments[department]}
        service_id = self.network.services[department]
        slots = registrar.get(
            "/v1/slots",
            **place,
            service_id=service_id,
            starts_at=(now + EARLIEST).isoformat(),
            ends_at=(now + timedelta(days=7)).isoformat(),
            limit=1,
        )
        self.tell(f"next free slot: {slots[0]['starts_at']}")
        booked = registrar.post(
            "/v1/appointments",
            {
                **place,
                "patient_id": self.patient_id,
                "service_id": service_id,
                "starts_at": slots[0]["starts_at"],
                "practitioner_id": slots[0]["practitioner_id"],
                "room_id": slots[0]["room_id"],
                "referral_id": referral_id,
            },
        )
        appointment: str = booked["appointment_id"]
        self.event("AppointmentBooked", appointment)
        with self.waiting_for("the confirmation is in the patient's WhatsApp") as wait:
            wait(lambda: self._message_about(appointment))
        doctor = self.caller(person)
        doctor.post(f"/v1/appointments/{appointment}/arrive")
        self.event("PatientArrived", appointment)
        encounter = doctor.post(
            f"/v1/patients/{self.patient_id}/encounters",
            {
                "department_id": self.network.departments[department],
                "appointment_id": appointment,
                "referral_id": referral_id,
                "started_at": now.isoformat(),
                "summary": "Вымышленная запись",
                "diagnoses": [{"code": "L20.9", "rank": "primary"}],
            },
        )
        self.event("EncounterRecorded", encounter["encounter_id"])
        doctor.post(f"/v1/appointments/{appointment}/complete")
        self.event("AppointmentCompleted", appointment)
        return {**booked, "encounter_id": encounter["encounter_id"]}

    def _message_about(self, appointment_id: str) -> bool:
        messages = self.caller("registrar").items("/v1/messages", patient_id=self.patient_id)
        mine = [m for m in messages if m["about_id"] == appointment_id]
        sent = [m for m in mine if m["status"] in {"sent", "delivered", "read"}]
        return bool(sent)

    def pay(self, appointment: dict[str, Any]) -> None:
        self.chapter("2. The invoice is paid, and the provider says so several times, out of order")
        biller = self.caller("biller")
        with self.waiting_for("the visit is invoiced") as wait:
            invoice = wait(lambda: self._invoice_of(appointment["appointment_id"]))
        self.event("InvoiceIssued", invoice["invoice_id"])
        payment = self._start_payment(invoice["invoice_id"])
        with self.waiting_for("the provider knows the payment") as wait:
            reference = wait(lambda: biller.get(f"/v1/payments/{payment}")["provider_reference"])
        self._customer_pays(reference)
        with self.waiting_for("the invoice is paid") as wait:
            paid = wait(lambda: self._paid(invoice["invoice_id"]))
        self.event("PaymentReceived", payment)
        self.check(
            "the payment counts once, whatever the provider repeats",
            holds=paid["paid_minor"] == PRICE_MINOR["dermatology"] and paid["outstanding_minor"] == 0,
            shown=f"{paid['paid_minor'] / 100:.2f} {paid['currency']} paid",
        )

    def _invoice_of(self, appointment_id: str) -> dict[str, Any] | None:
        invoices = self.caller("biller").items("/v1/invoices", patient_id=self.patient_id)
        return next((i for i in invoices if i["appointment_id"] == appointment_id), None)

    def _start_payment(self, invoice_id: str) -> str:
        """Pay as the patient: staff don't."""
        with self._as_patient() as patient:
            payment = patient.post(f"/v1/invoices/{invoice_id}/payments")
        return str(payment["payment_id"])

    def _as_patient(self) -> Caller:
        login = f"patient.{self.patient_id}@example.org"
        given = self.caller("registrar").post(
            "/v1/users/patients", {"patient_id": self.patient_id, "login": login}
        )
        return Caller(self.url, login, given["initial_password"])

    def _customer_pays(self, reference: str) -> None:
        with httpx.Client(base_url=self.fakes_url, timeout=60, trust_env=False) as provider:
            provider.post(
                f"/_control/stripe/{reference}/pay", json={"deliveries": 3, "reorder": True}
            ).raise_for_status()
        self.tell("the customer pays at the provider; each notification comes three times, the last first")

    def _paid(self, invoice_id: str) -> dict[str, Any] | None:
        invoice: dict[str, Any] = self.caller("biller").get(f"/v1/invoices/{invoice_id}")
        return invoice if invoice["outstanding_minor"] == 0 else None

    def refer(self) -> None:
        self.chapter("3. Dermatology asks dietetics")
        dermatologist, dietitian = self.caller("dermatologist"), self.caller("dietitian")
        created = dermatologist.post(
            "/v1/referrals",
            {
                "patient_id": self.patient_id,
                "from_department_id": self.network.departments["dermatology"],
                "to_department_id": self.network.departments["dietetics"],
                "question": "Вымышленный вопрос: подбор диеты",
                "service_code": "dietetics-consultation",
            },
        )
        referral: str = created["referral_id"]
        self.event("ReferralCreated", referral)
        dietitian.post(f"/v1/referrals/{referral}/accept")
        self.event("ReferralAccepted", referral)
        self.visit("dietetics", "dietitian", referral_id=referral)
        with self.waiting_for("the referral heard that the patient was seen") as wait:
            wait(lambda: dietitian.get(f"/v1/referrals/{referral}")["status"] == "seen")
        self.event("ReferralSeen", referral)
        dietitian.post(f"/v1/referrals/{referral}/report", {"outcome": "Вымышленное заключение"})
        self.event("ReferralReported", referral)
        closed = dermatologist.post(f"/v1/referrals/{referral}/close", {"reason_code": "completed"})
        self.event("ReferralClosed", referral)
        self.check(
            "the referral's loop is closed", holds=closed["status"] == "closed", shown=closed["status"]
        )

    def laboratory(self) -> None:
        self.chapter("4. The laboratory answers twice")
        message = self._order_and_message("panel.hl7")
        first, second = self.post_hl7(message), self.post_hl7(message)
        self.tell(f"acknowledged: {_acknowledgement(first)}; again: {_acknowledgement(second)}")
        with self.waiting_for("the result is in the chart") as wait:
            results = wait(self._results)
        self.event("LabResultFiled", results[0]["result_id"])
        self.check(
            "the result that arrived twice is in the chart once",
            holds=len(results) == 1 and len(results[0]["versions"]) == 1,
            shown=f"{len(results)} result, {results[0]['versions'][0]['observation_count']} observations",
        )
        self.check(
            "both acknowledgements are the same",
            holds=apart_from_its_time(first) == apart_from_its_time(second),
            shown=_acknowledgement(first),
        )

    def _order_and_message(self, sample: str) -> bytes:
        """Order tests, and write the lab's answer to that order."""
        order = self.caller("dermatologist").post(
            "/v1/lab/orders",
            {
                "patient_id": self.patient_id,
                "partner_id": self.network.lab_partner_id,
                "department_id": self.network.departments["dermatology"],
                "tests": [{"code": "CBC", "display": "Complete blood count"}],
            },
        )
        self.event("LabOrderPlaced", order["lab_order_id"])
        text = (SAMPLES / sample).read_bytes()
        control_id = f"DEMO{time.time_ns()}"
        header, _, rest = text.partition(b"\r")
        fields = header.split(b"|")
        fields[9] = control_id.encode()
        return (
            b"\r".join((b"|".join(fields), rest))
            .replace(b"PATIENT-NUMBER", self.identifier["value"].encode())
            .replace(b"ORDER-NUMBER", order["placer_order_number"].encode())
            .replace(b"FILLER-0001", f"F{control_id}".encode())
        )

    def post_hl7(self, message: bytes) -> bytes:
        """Post as the lab does: HTTP Basic, the body an HL7 acknowledgement."""
        lab = (self.network.lab_client_id, self.network.lab_client_secret)
        answer = httpx.post(
            f"{self.url}/v1/lab/messages",
            content=message,
            headers={"Content-Type": HL7},
            auth=lab,
            timeout=60,
            trust_env=False,
        )
        answer.raise_for_status()
        return answer.content

    def _results(self) -> list[dict[str, Any]]:
        return self.caller("dermatologist").items(f"/v1/patients/{self.patient_id}/observations")

    def kill_and_continue(self) -> None:
        self.chapter("5. A service is killed in the middle")
        before = len(self._results())
        message = self._order_and_message("panel.hl7")
        state = RunState.read(self.root)
        process = state.process("patients") if state else None
        if process is None or process.pid is None:
            raise JourneyError("the patients service runs elsewhere: it can't be killed from here")
        os.kill(process.pid, signal.SIGKILL)
        self.tell(f"[red]kill -9[/red] patients (pid {process.pid}), which files results into charts")
        self.tell(
            f"the lab's message is acknowledged all the same: {_acknowledgement(self.post_hl7(message))}"
        )
        with self.waiting_for("the result is in the chart") as wait:
            wait(lambda: self._one_more_than(before))
        after = len(self._results())
        self.check("nothing is missing after the kill", holds=after == before + 1, shown=f"{after} results")

    def _one_more_than(self, before: int) -> bool:
        try:
            return len(self._results()) > before
        except httpx.HTTPError:
            return False
        except ApiError as error:
            if error.status < httpx.codes.INTERNAL_SERVER_ERROR:
                raise
            return False

    def report(self) -> None:
        self.chapter("6. Department and centre reports")
        today = datetime.now(UTC).date()
        period = {
            "starts_on": (today - timedelta(days=1)).isoformat(),
            "ends_on": (today + timedelta(days=8)).isoformat(),
            "centre_id": self.network.centre_id,
        }
        manager = self.caller("manager")
        with self.waiting_for("the reports have heard of both visits") as wait:
            departments = wait(lambda: self._visits_reported(manager, period))
        centre = manager.get("/v1/reports/appointments", level="centre", **period)["items"]
        sums = {name: sum(row["by_status"].get(name, 0) for row in departments) for name in ("completed",)}
        whole = sum(row["by_status"].get("completed", 0) for row in centre)
        for row in departments:
            self.tell(f"{row['name']}: {row['by_status']}")
        self.check(
            "the centre's figures are the sum of its departments'",
            holds=whole == sums["completed"],
            shown=f"{whole} completed visits",
        )

    def _visits_reported(self, manager: Caller, period: dict[str, str]) -> list[dict[str, Any]] | None:
        rows: list[dict[str, Any]] = manager.get("/v1/reports/appointments", level="department", **period)[
            "items"
        ]
        seen = [row for row in rows if row["by_status"].get("completed")]
        return rows if len(seen) >= 2 else None  # noqa: PLR2004  # dermatology and dietetics

    def account(self) -> None:
        self.chapter("7. The books")
        report = self.caller("privacy-officer").post("/v1/audit/verify")
        self.check("the audit log is intact", holds=report["intact"], shown=f"{report['records']} records")
        with self._admin() as admin, self.waiting_for("nothing is in flight any more") as wait:
            ledger = wait(lambda: self._settled(admin))
        money = ledger["services"]["billing"]["money_sum_minor"]
        for line in ledger["interfaces"]:
            shown = f"{line['answered']} answered, {line['applied']} applied, {line['parked']} parked"
            self.check(
                f"every {line['interface']} message is accounted for", holds=line["balanced"], shown=shown
            )
        self.check(
            "all money movements add up to zero",
            holds=money == 0,
            shown=money,
        )

    def _admin(self) -> Caller:
        from clinic_local.environment import ADMIN_LOGIN, ADMIN_PASSWORD, Secrets  # noqa: PLC0415

        return Caller(self.url, ADMIN_LOGIN, Secrets(self.root).get(ADMIN_PASSWORD))

    @staticmethod
    def _settled(admin: Caller) -> dict[str, Any] | None:
        ledger: dict[str, Any] = admin.get("/v1/ops/ledger")
        return ledger if all(line["in_flight"] == 0 for line in ledger["interfaces"]) else None

    def conclude(self) -> bool:
        table = Table(title="What must be true")
        table.add_column("")
        table.add_column("claim")
        table.add_column("seen")
        for claim, holds, shown in self.checks:
            table.add_row("[green]✓[/green]" if holds else "[red]✗[/red]", claim, shown)
        self.console.print()
        self.console.print(table)
        return all(holds for _, holds, _ in self.checks)


def apart_from_its_time(acknowledgement: bytes) -> list[bytes]:
    """Its fields without MSH-7: while the database is slow nobody remembers when the first was written."""
    fields = acknowledgement.split(b"|")
    return [*fields[:6], *fields[7:]]


def _acknowledgement(answer: bytes) -> str:
    """Return MSA-1 and MSA-2 of an acknowledgement."""
    segments = [line.split("|") for line in answer.decode("utf-8", "replace").split("\r")]
    return next((f"{s[1]} {s[2]}" for s in segments if s[0] == "MSA"), "no acknowledgement")
