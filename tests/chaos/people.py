"""Those who use the system from outside: each does something, tells the history what came of it, and persists.

Whoever gets no answer, or one that says that the platform is in trouble, does the same again: the registrar
with the same Idempotency-Key, the laboratory with the same bytes, as real clients are told to.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from clinic_local.api_client import ApiError, Caller
from clinic_local.demo_network import Network
from clinic_local.paths import CHECKOUT

from .books import BOOKING, CORRECTION, INBOUND, LAB_RESULT, MARK, OBSERVATION, SERIES, fingerprints
from .history import Answer, History

PATIENCE_SECONDS = 240.0
PANEL = CHECKOUT / "contracts" / "hl7" / "panel.hl7"
CORRECTED = CHECKOUT / "contracts" / "hl7" / "correction.hl7"
HL7 = "application/hl7-v2"
_RETRY_SECONDS = 0.2
_SLOTS_A_DAY = 24
_LONGEST_SERIES = 50
_COME_AGAIN = {
    httpx.codes.TOO_MANY_REQUESTS,
    httpx.codes.REQUEST_TIMEOUT,
    # Whoever's clock is wrong takes a token for expired, or for one of tomorrow.
    httpx.codes.UNAUTHORIZED,
}


class Person(Caller):
    """Signs in again when the platform doesn't take their token, which may come from a clock that was wrong."""

    def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        try:
            return super().send(method, path, headers=headers, **options)
        except ApiError as error:
            if error.status == httpx.codes.UNAUTHORIZED:
                self.forget_token()
            raise


class NotAnsweredError(Exception):
    """Nobody answered, or only to say that the platform is in trouble: it may have taken effect."""


def persist(history: History, operations: dict[str, list[str]], attempt: Callable[[], Any]) -> Any:
    """Try until there is an answer, noting each attempt for all `operations` (keys by kind).

    Raises what the attempt raised when it is refused, or when patience ends.
    """

    def note(answer: Answer) -> None:
        for kind, keys in operations.items():
            for key in keys:
                history.record(kind, key, answer)

    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            answered = attempt()
        except (httpx.TransportError, NotAnsweredError, ApiError) as error:
            refused = isinstance(error, ApiError) and not _is_passing(error)
            note(Answer.FAILED if refused else Answer.UNKNOWN)
            if refused or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            note(Answer.ACKED)
            return answered


def _is_passing(error: ApiError) -> bool:
    """Tell whether the platform is in trouble, or has said to come again."""
    return (
        error.status >= httpx.codes.INTERNAL_SERVER_ERROR
        or error.status in _COME_AGAIN
        or error.slug == "reference-not-yet-known"
    )


class Keys:
    """Makes keys that are unique in a run, and gives slots of the calendar, for any number of threads."""

    def __init__(self, first: int = 0) -> None:
        self._lock = threading.Lock()
        self._last = first
        self._last_slot = first
        self._run = f"{time.time_ns():x}"

    def next(self) -> tuple[int, str]:
        with self._lock:
            self._last += 1
            return self._last, f"{MARK}{self._run}-{self._last}"

    def slot(self) -> datetime:
        """Return the start of another half hour within the demo network's hours, from the day after tomorrow on."""
        with self._lock:
            self._last_slot += 1
            day, place = divmod(self._last_slot, _SLOTS_A_DAY)
        opening = datetime.now(ZoneInfo("Europe/Moscow")).replace(hour=8, minute=0, second=0, microsecond=0)
        return (opening + timedelta(days=2 + day, minutes=30 * place)).astimezone(UTC)


@dataclass
class Patient:
    patient_id: str
    record_number: str


@dataclass
class Desk:
    """The registry: registers patients and books appointments, each in a slot of its own."""

    caller: Caller
    network: Network
    history: History
    keys: Keys = field(default_factory=Keys)

    def register(self) -> Patient:
        number, _ = self.keys.next()
        registered = self.caller.post(
            "/v1/patients",
            {
                "centre_id": self.network.centre_id,
                "name": {"family": "Тестова", "given": "Анна"},
                "birth_on": "1990-01-02",
                "sex": "female",
                "phones": [f"+7000{number:07d}"],
                "language": "ru",
            },
        )
        record_number = next(i["value"] for i in registered["identifiers"] if i["type"] == "MR")
        return Patient(registered["patient_id"], record_number)

    def book(self, patient: Patient, *, department: str = "dermatology") -> dict[str, Any]:
        _, key = self.keys.next()
        body = {
            "patient_id": patient.patient_id,
            "service_id": self.network.services[department],
            "centre_id": self.network.centre_id,
            "department_id": self.network.departments[department],
            "practitioner_id": self.network.staff[_PRACTITIONERS[department]],
            "room_id": self.network.rooms[department],
            "starts_at": self.keys.slot().isoformat(),
            "reason": key,
        }

        def attempt() -> dict[str, Any]:
            answer = self.caller.send("POST", "/v1/appointments", json=body, headers={"Idempotency-Key": key})
            return dict(answer.json())

        return dict(persist(self.history, {BOOKING: [key]}, attempt))


_PRACTITIONERS = {"dermatology": "dermatologist", "dietetics": "dietitian"}


@dataclass(frozen=True)
class Sent:
    """What was told about a patient under a filler number, so that it can be told again of somebody else."""

    patient: Patient
    filler: str
    message: bytes


@dataclass
class Lab:
    """The laboratory: sends the same bytes until they are acknowledged."""

    url: str
    network: Network
    history: History
    keys: Keys = field(default_factory=Keys)
    sent: list[Sent] = field(default_factory=list)
    _series: dict[str, tuple[str, int]] = field(default_factory=dict)

    def write(self, patient: Patient, order_number: str = "") -> tuple[str, bytes]:
        """Write the panel of `contracts/hl7` about a patient; returns its filler number and the bytes."""
        _, key = self.keys.next()
        header, _, rest = PANEL.read_bytes().partition(b"\r")
        fields = header.split(b"|")
        fields[9] = key.encode()
        return key, (
            b"\r".join((b"|".join(fields), rest))
            .replace(b"PATIENT-NUMBER", patient.record_number.encode())
            .replace(
                b"ORDER-NUMBER^POLYCLINIC", f"{order_number}^POLYCLINIC".encode() if order_number else b""
            )
            .replace(b"FILLER-0001", key.encode())
        )

    def send(self, patient: Patient, *, again: bool = False) -> str:
        """Send a result until it is acknowledged, `again` as if it had not been; returns its filler number."""
        key, message = self.write(patient)
        for _ in range(2 if again else 1):
            self.insist(key, message)
        self.sent.append(Sent(patient, key, message))
        return key

    def insist(self, key: str, message: bytes) -> bytes:
        """Send these bytes until they are acknowledged; returns the acknowledgement."""
        operations = {LAB_RESULT: [key], OBSERVATION: [f"{key}/{code}" for code in _codes(message)]}
        return self.accepted(message, operations)

    def amend(self, patient: Patient) -> str:
        """Send the next value of a patient's one result that is corrected again and again."""
        number, key = self.keys.next()
        filler, count = self._series.get(patient.patient_id, ("", _LONGEST_SERIES))
        if count == _LONGEST_SERIES:
            filler, count = f"{SERIES}{key}", 0
        count += 1
        message = _nth_value(patient, filler, count, control_id=f"{key}-{number}")
        self.accepted(message, {CORRECTION: [f"{filler}#{count}"]})
        self._series[patient.patient_id] = filler, count
        self.sent.append(Sent(patient, filler, message))
        return filler

    def deliver(self, payload: bytes) -> None:
        """Send what others wrote until there is an answer, whatever it says."""
        try:
            persist(self.history, {INBOUND: fingerprints(payload)}, lambda: self._post(payload))
        except ApiError as error:
            if error.slug != "unreadable-message":
                raise

    def accepted(self, message: bytes, operations: dict[str, list[str]] | None = None) -> bytes:
        """Send these bytes until they are accepted, which stands for these operations; returns the answer."""
        answer = persist(
            self.history, (operations or {}) | {INBOUND: fingerprints(message)}, lambda: self._post(message)
        )
        assert acknowledgement_code(answer) == "AA", answer
        return bytes(answer)

    def _post(self, message: bytes) -> bytes:
        """Send once. Raises NotAnsweredError, ApiError."""
        answer = self.post(message)
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or answer.status_code in _COME_AGAIN:
            raise NotAnsweredError
        if not answer.is_success:
            raise ApiError(answer)
        return answer.content

    def post(self, message: bytes) -> httpx.Response:
        """Send once, with HTTP Basic as interface engines do."""
        return httpx.post(
            f"{self.url}/v1/lab/messages",
            content=message,
            headers={"Content-Type": HL7},
            auth=(self.network.lab_client_id, self.network.lab_client_secret),
            timeout=60,
            trust_env=False,
        )


def _nth_value(patient: Patient, filler: str, count: int, *, control_id: str) -> bytes:
    """Write a result whose only value is its number, each reported a minute after the one before."""
    reported = datetime(2026, 1, 15, 11, 0, tzinfo=UTC) + timedelta(minutes=count)
    text = CORRECTED.read_text(encoding="utf-8")
    replaced = {
        "CORRECTION-0001": control_id,
        "PATIENT-NUMBER": patient.record_number,
        "ORDER-NUMBER^POLYCLINIC": "",
        "FILLER-0001": filler,
        "20260115143000+0300": f"{reported:%Y%m%d%H%M%S}+0000",
        "20260115102500+0300": f"{reported:%Y%m%d%H%M%S}+0000",
        "|121|": f"|{count}|",
    }
    for old, new in replaced.items():
        text = text.replace(old, new)
    if count == 1:
        text = re.sub(r"\|C(?=\||\r|\n|$)", "|F", text)
    return text.encode()


def corpus() -> Iterator[bytes]:
    """Yield the HL7 files that `CLINIC_CORPUS` names, which are no part of this repository, each message once."""
    folder = os.environ.get("CLINIC_CORPUS")
    seen: set[str] = set()
    for file in sorted(Path(folder, "hl7v2").rglob("*")) if folder else ():
        if file.suffix in {".hl7", ".txt"}:
            payload = file.read_bytes()
            if seen.isdisjoint(found := fingerprints(payload)):
                seen.update(found)
                yield payload


def acknowledgement_code(answer: bytes) -> str | None:
    """Return MSA-1."""
    segments = (line.split("|") for line in answer.decode().split("\r"))
    return next((segment[1] for segment in segments if segment[0] == "MSA"), None)


def _codes(message: bytes) -> list[str]:
    """Return the code of each OBX."""
    segments = (line.split("|") for line in message.decode().split("\r"))
    return [segment[3].split("^")[0] for segment in segments if segment[0] == "OBX"]


def read_network(root: Path) -> Network:
    network = Network.read(root)
    assert network is not None, "the demo network wasn't seeded"
    return network
