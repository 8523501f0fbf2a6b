"""API3:2023 and injection: bodies and queries that were changed where their description says what they are.

Generated from the operations' examples and parameters. Every answer is one of the API's own: nothing that
wasn't described is taken, nothing is a server error, and a refusal repeats nothing.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
from clinic_shared.testing_examples import (
    CONTRACTS,
    JSON,
    Operation,
    all_operations_of,
    headers_of_one_who_may_do_everything,
    operations_of,
    with_known_ids,
)

from .conftest import Target, TargetOf

pytestmark = pytest.mark.slow

NOBODY_SETS = (
    "id",
    "role",
    "roles",
    "is_admin",
    "created_by",
    "clinic_id",
    "is_released",
    "version",
    "__proto__",
)
PAYLOADS = ("' OR 1=1;--", "<script>{{7*7}}${x}", "\r\nX-Planted: y\t%s", "../../etc/passwd")
MARKUP = ("<script>{{", "\r\nX-Planted")
OTHER_TYPES: tuple[Any, ...] = ([{}], True, 10**40)
Place = tuple[str | int, ...]


def places(node: Any, at: Place = ()) -> Iterator[Place]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield from places(child, (*at, name))
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from places(child, (*at, number))
    else:
        yield at


def replaced(example: Any, at: Place, value: Any) -> Any:
    changed = deepcopy(example)
    node = changed
    for step in at[:-1]:
        node = node[step]
    node[at[-1]] = value
    return changed


async def send(target: Target, operation: Operation, body: Any) -> Any:
    headers = headers_of_one_who_may_do_everything(target.service) | {"Content-Type": JSON}
    return await target.service.http.request(
        operation.method,
        operation.url(target.known),
        content=with_known_ids(body, target.known),
        headers=headers,
    )


@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_a_field_that_nobody_described_is_refused(name: str, target_of: TargetOf) -> None:
    target, taken = await target_of(name), []
    for operation in operations_of(name):
        described = (operation.body or {}).get("properties", {})
        extra = {field: "admin" for field in NOBODY_SETS if field not in described}
        if isinstance(operation.examples[0], dict):
            answer = await send(target, operation, {**operation.examples[0], **extra})
            if answer.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
                taken.append(f"{operation.name}: {answer.status_code}")
    assert not taken, "\n".join(taken)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_no_value_in_a_body_is_executed_repeated_or_an_error_of_ours(
    name: str, target_of: TargetOf
) -> None:
    target, wrong = await target_of(name), []
    for operation in operations_of(name):
        for at in places(operation.examples[0]):
            for value in (*PAYLOADS, *OTHER_TYPES):
                answer = await send(target, operation, replaced(operation.examples[0], at, value))
                if is_wrong(answer, value):
                    wrong.append(f"{operation.name} {at} {value!r}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", CONTRACTS.services)
async def test_no_value_in_a_query_is_executed_repeated_or_an_error_of_ours(
    name: str, target_of: TargetOf
) -> None:
    target, wrong = await target_of(name), []
    for operation in all_operations_of(name):
        for parameter in operation.parameters("query"):
            for value in (*PAYLOADS, "-1", "1" + "0" * 40, "(a+)+$", "%00"):
                headers = headers_of_one_who_may_do_everything(target.service)
                answer = await target.service.http.request(
                    operation.method,
                    operation.url(target.known),
                    params={parameter["name"]: value},
                    headers=headers,
                )
                if is_wrong(answer, value):
                    wrong.append(f"{operation.name} {parameter['name']}={value!r}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)


def is_wrong(answer: Any, value: Any) -> bool:
    """A success may show what was stored as JSON, which no browser takes for markup; a page, escaped."""
    repeats = value in PAYLOADS and not answer.is_success and json.dumps(value)[1:-1] in answer.text
    markup = "html" in answer.headers.get("content-type", "") and any(one in answer.text for one in MARKUP)
    return answer.is_server_error or repeats or markup or "x-planted" in answer.headers
