"""The examples of the API descriptions are true: each fits its schema, and its service takes it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from clinic_shared.auth import TokenSigner
from clinic_shared.service import Service
from clinic_shared.testing import FixedClock, Servers
from clinic_shared.testing_examples import (
    CONTRACTS,
    NAMED,
    Operation,
    description_of,
    ids_in,
    operations_of,
    send,
    service_named,
)
from jsonschema import Draft202012Validator, FormatChecker

FORMATS = FormatChecker(())
# Opening hours are a place's local time: 17:00 has no offset, which RFC 3339 wants of a `time`.
FORMATS.checkers = {
    name: check for name, check in Draft202012Validator.FORMAT_CHECKER.checkers.items() if name != "time"
}
REFUSED_AS_WRONG = {400, 403, 415, 422, 428}
# No password, token or dead letter of an example can be anybody's; not every service hears events or can be rebuilt.
ABOUT_NOTHING_HERE = {
    "addPasskey",
    "beginTotp",
    "choosePin",
    "unlockSession",
    "getPasskeyLoginOptions",
    "logInWithPasskey",
    "logInWithRecoveryCode",
    "logInWithTotp",
    "confirmSms",
    "logInWithSms",
    "sendLoginCode",
    "stepUp",
    "acceptAccessLink",
    "ask_to_discard_inbound_messages",
    "changePassword",
    "discard_dead_letters",
    "logIn",
    "logInBrowser",
    "finishBrowserLogin",
    "stepUpBrowser",
    "redrive_dead_letters",
    "refreshSession",
    "reprocess_inbound_messages",
    "request_rebuild",
    "request_resend",
}


@pytest.mark.parametrize("service", CONTRACTS.services)
def test_every_operation_that_takes_json_shows_what_to_send(service):
    assert [operation.name for operation in operations_of(service) if not operation.examples] == []


@pytest.mark.parametrize("service", CONTRACTS.services)
def test_every_example_fits_its_schema(service):
    document = description_of(service)
    for schema in _with_examples(document):
        whole = schema | {"components": document["components"]}
        validator = Draft202012Validator(whole, format_checker=FORMATS)
        for example in schema["examples"]:
            assert [error.message for error in validator.iter_errors(example)] == [], example


def _with_examples(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list) and ("type" in node or "anyOf" in node):
            yield node
        for child in node.values():
            yield from _with_examples(child)
    elif isinstance(node, list):
        for child in node:
            yield from _with_examples(child)


@pytest.fixture
async def running(
    servers: Servers, database_of: Callable[[Service], str], signer: TokenSigner, clock: FixedClock, tmp_path
) -> AsyncIterator[Callable[[str], Any]]:
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Any:
            return await stack.enter_async_context(
                service_named(
                    name,
                    database_of=database_of,
                    amqp_url=servers.amqp_url,
                    signer=signer,
                    clock=clock,
                    folder=tmp_path,
                )
            )

        yield start


def is_accepted(operation: Operation, answer: httpx.Response) -> bool:
    if operation.follows or operation.name in ABOUT_NOTHING_HERE:
        return not answer.is_server_error and answer.status_code not in REFUSED_AS_WRONG
    return answer.is_success


@pytest.mark.timeout(180)
@pytest.mark.parametrize("service", CONTRACTS.services)
async def test_a_service_takes_its_own_examples(service, running):
    started = await running(service)
    known = dict(NAMED)
    for operation in sorted(operations_of(service), key=lambda found: found.needs):
        for example in operation.examples:
            answer = await send(started, operation, example, known)
            assert is_accepted(operation, answer), f"{operation.name}: {answer.status_code} {answer.text}"
            known |= ids_in(answer)
