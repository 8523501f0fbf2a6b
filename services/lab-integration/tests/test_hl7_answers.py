"""The acknowledgements that `contracts/hl7` promises, byte for byte."""

from pathlib import Path

import pytest
from clinic_lab_integration.hl7 import PRODUCTION, Terms

from .conftest import SAMPLES, assess

ANSWERS = SAMPLES / "answers"
EXPECTED = sorted(ANSWERS.glob("*.ack"))


def message_of(expected: Path) -> bytes:
    own = ANSWERS / f"{expected.stem}.hl7"
    return (own if own.exists() else SAMPLES / own.name).read_bytes()


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda file: file.stem)
def test_the_answer_is_the_one_promised(expected: Path, at) -> None:
    terms = Terms(processing_ids=PRODUCTION) if expected.stem == "test-message" else Terms()
    answer = assess(message_of(expected), terms=terms).answer(at=at) or b""
    assert answer.decode("latin-1") == expected.read_bytes().decode("latin-1")


def test_every_sample_has_its_answer() -> None:
    samples = {file.stem for folder in (SAMPLES, ANSWERS) for file in folder.glob("*.hl7")}
    assert samples == {file.stem for file in EXPECTED}
    assert len(samples) > 20
