"""A laboratory with its secret, the clinic that it sends to, and HL7 messages of every shape."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from clinic_lab_integration import hl7
from clinic_lab_integration.app import processing, service
from clinic_lab_integration.hl7 import AssessedMessage, PatientResult, Report, read_report
from clinic_lab_integration.messages import INTERFACES
from clinic_lab_integration.partners import PartnerDirectory
from clinic_shared.database import Transaction
from clinic_shared.ids import uuid7
from clinic_shared.intake_store import intake_table, item_of
from clinic_shared.intake_worker import IntakeWorker
from clinic_shared.ledger import Ledger
from clinic_shared.testing import ServiceHarness, service_fixture
from sqlalchemy import Row, Table, select

SAMPLES = Path(__file__).resolve().parents[3] / "contracts" / "hl7"

MESSAGES = "/v1/lab/messages"

Compose = Callable[..., bytes]
FhirBundle = Callable[..., dict[str, Any]]


def assess(raw: bytes, **options: Any) -> Any:
    """Judge a payload. Untyped: a test knows whether there is a message, and an answer, in what it has sent."""
    return hl7.assess(raw, **options)


lab_integration = service_fixture(service, partner_refresh_seconds=3600)


@dataclass
class Laboratory:
    """The service as a laboratory and the clinic's people meet it."""

    lab: ServiceHarness
    partner_id: UUID = field(default_factory=uuid7)
    client_id: str = "lab-test"
    secret: str = "fictitious-secret"
    department_id: UUID = field(default_factory=uuid7)
    centre_id: UUID = field(default_factory=uuid7)

    # -- what comes from other services

    async def register(self, **changes: Any) -> None:
        await self.lab.deliver_example(
            "identity.lab-registered.v1",
            partner_id=str(self.partner_id),
            client_id=self.client_id,
            secret_digests=[digest_of(self.secret)],
            **changes,
        )
        await self.lab.runtime.get(PartnerDirectory).refresh()

    async def open_department(self) -> None:
        await self.lab.deliver_example(
            "identity.department-opened.v1",
            department_id=str(self.department_id),
            centre_id=str(self.centre_id),
        )

    async def add_patient(self, number: str = "MRN-1", authority: str = "POLYCLINIC", **changes: Any) -> UUID:
        patient_id = UUID(str(changes.pop("patient_id", uuid7())))
        await self.lab.deliver_example(
            "patients.patient-registered.v1",
            patient_id=str(patient_id),
            identifiers=[{"authority": authority, "type": "MR", "value": number}],
            **changes,
        )
        return patient_id

    async def chart_files(self) -> int:
        """Let the chart answer to every result sent so far; returns to how many."""
        filed = 0
        for event in await self.lab.events():
            if ".lab-result-" in event.type and event.event_id not in self._filed:
                self._filed.add(event.event_id)
                filed += 1
                line = ("result_id", "version", "patient_id", "message_id", "group_index", "report_index")
                await self.lab.deliver_example(
                    "patients.lab-result-filed.v1",
                    **{"status": event.data["status"]} | {name: event.data[name] for name in line},
                )
        return filed

    _filed: set[UUID] = field(default_factory=set)

    # -- the laboratory

    async def post(
        self, message: bytes, content_type: str = "application/hl7-v2", **headers: str
    ) -> httpx.Response:
        sent = {"content-type": content_type} | headers
        auth: Any = None if "authorization" in headers else (self.client_id, self.secret)
        return await self.lab.http.post(MESSAGES, content=message, headers=sent, auth=auth)

    async def send(self, message: bytes) -> str:
        """Post a message that is to be taken; returns its id once it is processed."""
        answer = await self.post(message)
        assert answer.status_code == 200, answer.text
        assert msa(answer)[:2] in (["MSA", "AA"], ["MSA", "CA"]), answer.text
        await self.process()
        return answer.headers["location"].rpartition("/")[2]

    async def process(self) -> int:
        """Process every message that is due; returns how many."""
        interfaces = dict.fromkeys(INTERFACES, processing(self.lab.runtime))
        worker, processed = IntakeWorker(self.lab.runtime, interfaces), 0
        while await worker.process_next():
            processed += 1
        return processed

    # -- the clinic's people

    def headers(self, *roles: str, **claims: Any) -> dict[str, str]:
        if roles in {(), ("doctor",)}:
            claims = {"department_ids": frozenset({self.department_id}), **claims}
        return self.lab.headers(self.lab.principal(*(roles or ("doctor",)), **claims))

    async def get(self, path: str, *roles: str, **query: Any) -> Any:
        answer = await self.lab.http.get(path, params=query, headers=self.headers(*roles))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def order(self, patient_id: UUID, **changes: Any) -> Any:
        body = {
            "patient_id": str(patient_id),
            "partner_id": str(self.partner_id),
            "department_id": str(self.department_id),
            "tests": [{"code": "58410-2", "system": "http://loinc.org"}],
        } | changes
        answer = await self.lab.http.post("/v1/lab/orders", json=body, headers=self.headers())
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def units(self, message_id: str) -> list[tuple[str, str | None]]:
        """Return what became of a message's patient groups, as (disposition, reason)."""
        found = await self.get(f"{MESSAGES}/{message_id}")
        return [(unit["disposition"], unit["reason"]) for unit in found["units"]]

    async def treat(self, patient_id: UUID) -> None:
        """Put a patient into the care of the department, whose doctors ask here."""
        await self.lab.deliver_example(
            "patients.care-relationship-started.v1",
            patient_id=str(patient_id),
            source_id=str(uuid7()),
            practitioner_id=None,
            department_id=str(self.department_id),
            ends_at=None,
        )

    async def results(self, patient_id: UUID) -> Any:
        await self.treat(patient_id)
        return (await self.get("/v1/lab/results", patient_id=str(patient_id)))["items"]

    async def result_events(self) -> list[tuple[str, int, str]]:
        """Return what the chart was told, as (event, version, status)."""
        events = [event for event in await self.lab.events() if ".lab-result-" in event.type]
        return [
            (
                event.type.split(".")[1].removeprefix("lab-result-"),
                event.data["version"],
                event.data["status"],
            )
            for event in events
        ]

    async def dispositions(self, interface: str = "hl7") -> dict[str, int]:
        """Return an interface's ledger, zeros left out; asserts that the sum is right."""
        async with self.lab.runtime.database.transaction() as tx:
            counted = await Ledger.of(self.lab.runtime).interfaces[interface](tx)
        assert counted.balanced, counted
        return {name: count for name, count in vars(counted).items() if count}

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        """Return a table's rows; those of the intake with what was received, opened."""
        async with self.lab.runtime.database.transaction() as tx:
            found = await tx.fetch_all(select(table))
            return [dict(row._mapping) | (_opened(tx, row) if table is intake_table else {}) for row in found]


def _opened(tx: Transaction, row: Row[Any]) -> dict[str, Any]:
    item = item_of(tx, row)
    return {"body": item.body, "answer": item.answer, "attributes": item.attributes}


def digest_of(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def msa(answer: httpx.Response) -> list[str]:
    return next(line for line in answer.text.split("\r") if line.startswith("MSA")).split("|")


@pytest.fixture
async def lab(lab_integration: ServiceHarness) -> Laboratory:
    made = Laboratory(lab_integration)
    await made.register()
    await made.open_department()
    return made


@pytest.fixture
def sample(samples: Path) -> Callable[..., bytes]:
    """A sample message with its placeholders replaced; `control_id` replaces MSH-10."""

    def read(
        name: str,
        *,
        patient: str = "MRN-1",
        patient_2: str = "MRN-2",
        order: str = "NO-ORDER-1",
        order_2: str = "NO-ORDER-2",
        **changes: str,
    ) -> bytes:
        text = (samples / f"{name}.hl7").read_bytes()
        replacements = {
            "PATIENT-NUMBER-2": patient_2,
            "PATIENT-NUMBER": patient,
            "ORDER-NUMBER-2": order_2,
            "ORDER-NUMBER": order,
        } | changes
        for placeholder, value in replacements.items():
            text = text.replace(placeholder.encode(), value.encode())
        return text

    return read


@pytest.fixture
def at() -> datetime:
    return datetime(2026, 1, 15, 9, 0, tzinfo=UTC)


@pytest.fixture
def samples() -> Path:
    return SAMPLES


@pytest.fixture
def compose() -> Compose:
    """An ORU^R01 of the given segments; `msh` replaces header fields by number, `end` ends segments."""

    def build(
        *segments: str, msh: dict[int, str] | None = None, end: str = "\r", codec: str = "utf-8"
    ) -> bytes:
        fields = ["MSH", "|", "^~\\&", "TESTLIS", "TESTLAB", "POLYCLINIC", "CENTRE", "20260115103000", ""]
        fields += ["ORU^R01^ORU_R01", "MSG-1", "P", "2.5.1", *[""] * 6]
        for number, text in (msh or {}).items():
            fields[number] = text
        separator = fields[1]
        header = fields[0] + separator + separator.join(fields[2:]).rstrip(separator)
        body = segments or (
            "PID|1||MRN-1^^^POLYCLINIC^MR",
            "OBR|1|||2345-7^Glucose^LN",
            "OBX|1|NM|2345-7||5.10|mmol/L",
        )
        return "".join(line + end for line in (header, *body)).encode(codec)

    return build


@pytest.fixture
def fhir_bundle() -> FhirBundle:
    """A Bundle of a report with one observation and its patient; `changes` replace its elements."""

    def build(kind: str = "transaction", **changes: Any) -> dict[str, Any]:
        patient = {
            "resourceType": "Patient",
            "identifier": [{"value": "MRN-1", "assigner": {"display": "POLYCLINIC"}}],
            "name": [{"family": "Testova", "given": ["Anna"]}],
            "gender": "female",
            "birthDate": "1990-01-02",
        }
        bounds = {"low": {"value": 3.9}, "high": {"value": 6.1}}
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
            "subject": {"reference": "urn:uuid:patient"},
            "valueQuantity": {"value": 5.1, "unit": "mmol/L", "code": "mmol/L"},
            "referenceRange": [bounds],
        }
        report = {
            "resourceType": "DiagnosticReport",
            "identifier": [{"system": "https://lab.example.org/reports", "value": "FILLER-1"}],
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}], "text": "Glucose"},
            "subject": {"reference": "urn:uuid:patient"},
            "issued": "2026-01-15T10:30:00+03:00",
            "result": [{"reference": "urn:uuid:glucose"}],
        }
        named: dict[str, dict[str, Any]] = {"report": report, "glucose": observation, "patient": patient}
        entries = [
            {
                "fullUrl": f"urn:uuid:{name}",
                "resource": resource,
                "request": {"method": "POST", "url": str(resource["resourceType"])},
            }
            for name, resource in named.items()
        ]
        identifier = {"value": "B-1"}
        return {
            "resourceType": "Bundle",
            "type": kind,
            "identifier": identifier,
            "entry": entries,
        } | changes

    return build


@pytest.fixture
def assess_one() -> Callable[[bytes], AssessedMessage]:
    def run(raw: bytes) -> AssessedMessage:
        (message,) = hl7.assess(raw).messages
        return message

    return run


@pytest.fixture
def report(compose: Compose) -> Callable[..., Report]:
    """What the given segments of an ORU^R01 say."""

    def run(*segments: str, **options: object) -> Report:
        (message,) = assess(compose(*segments, **options)).messages
        assert message.message is not None
        return read_report(message.message)

    return run


@pytest.fixture
def patient(report: Callable[..., Report]) -> Callable[..., PatientResult]:
    def run(*segments: str, **options: object) -> PatientResult:
        (only,) = report(*segments, **options).patients
        return only

    return run


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Real HL7 v2 messages of other projects; they are not part of this one."""
    folder = os.environ.get("CLINIC_CORPUS")
    if not folder:
        pytest.skip("CLINIC_CORPUS names no folder of real messages")
    return Path(folder) / "hl7v2"
