"""Fixtures of lab-integration's tests."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clinic_lab_integration.hl7 import AssessedMessage, PatientResult, Report, assess, read_report

SAMPLES = Path(__file__).resolve().parents[3] / "contracts" / "hl7"

Compose = Callable[..., bytes]


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
def assess_one() -> Callable[[bytes], AssessedMessage]:
    def run(raw: bytes) -> AssessedMessage:
        (message,) = assess(raw).messages
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
