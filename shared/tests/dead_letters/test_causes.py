"""A cause is the same for messages that failed alike, in every release, and says nothing about anybody."""

from pathlib import Path

import pytest
from clinic_shared.errors import InvalidRequestError
from clinic_shared.failures import Failure
from pydantic import BaseModel, ValidationError

CANARY = "Канарейкина"
TYPE = "patients.patient-registered.v1"


class Payload(BaseModel):
    version: int
    name: str


def failure(source: str, *, value: str = "x", consumer: str = "reporting", event_type: str = TYPE) -> Failure:
    """Return the failure of a handler with this source, as a module of ours would raise it."""
    module = {"__name__": "clinic_reporting.consumers"}
    exec(compile(source, "consumers.py", "exec"), module)  # noqa: S102
    with pytest.raises(Exception) as caught:  # noqa: PT011
        module["remember"](value)  # type: ignore[operator]
    return Failure.of(event_type, caught.value, consumer=consumer)


HANDLER = "def remember(value):\n    raise LookupError(value)\n"


def test_lines_that_moved_and_other_values_make_no_other_cause() -> None:
    moved = "# a new release\n\n\n" + HANDLER.replace("    raise", "    value = value\n    raise")
    assert failure(HANDLER) == failure(moved, value="y")


@pytest.mark.parametrize(
    "other",
    [
        {"source": HANDLER.replace("LookupError", "KeyError")},
        {
            "source": "def inner(value):\n    raise LookupError(value)\ndef remember(value):\n    inner(value)\n"
        },
        {"source": HANDLER, "consumer": "billing"},
        {"source": HANDLER, "event_type": "patients.patient-updated.v1"},
    ],
    ids=["class", "place", "consumer", "type"],
)
def test_another_class_place_consumer_or_type_is_another_cause(other: dict[str, str]) -> None:
    assert failure(**other).cause != failure(HANDLER).cause


def test_the_place_is_ours_even_when_a_library_raised() -> None:
    """Where the library is installed, and under which path, is no part of the cause."""
    through = "import json\ndef remember(value):\n    json.loads('{')\n"
    elsewhere = through.replace("json.loads('{')", "json.JSONDecoder().decode('{')")
    assert failure(through).cause == failure(elsewhere).cause
    assert str(Path.home()) not in failure(through).error


def test_nothing_of_the_message_is_in_cause_or_error() -> None:
    for error in (LookupError(CANARY), InvalidRequestError(CANARY, name=CANARY)):
        told = Failure.of(TYPE, error, consumer="reporting")
        assert CANARY not in told.error
        assert len(told.cause) == 16
    with pytest.raises(ValidationError) as caught:
        Payload.model_validate({"version": CANARY})
    told = Failure.of(TYPE, caught.value, consumer="reporting")
    assert told.error == "ValidationError name:missing version:int_parsing"
