"""Into the log: once, contiguous, and never silently dropped."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiormq import spec
from aiormq.abc import DeliveredMessage
from clinic_audit import search, store
from clinic_audit.intake import incoming_of
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.tables import incident
from clinic_shared.audit import leaf_hash
from clinic_shared.senders import Senders
from clinic_shared.testing import ServiceHarness
from pamqp.header import ContentHeader
from sqlalchemy import select

from .conftest import RecordFactory


async def put(audit: ServiceHarness, *records: IncomingRecord) -> int:
    async with audit.runtime.database.transaction() as tx:
        return await record_batch(tx, records)


async def log(audit: ServiceHarness) -> list[tuple[int, str, int]]:
    async with audit.runtime.database.transaction() as tx:
        rows = await search.find(tx, search.Wanted(), after=None, limit=1000)
        return [(row.leaf_index, row.producer, row.pseq) for row in rows]


async def incidents(audit: ServiceHarness) -> list[tuple[str, int]]:
    async with audit.runtime.database.transaction() as tx:
        return [(row.kind, row.occurrences) for row in await tx.fetch_all(select(incident))]


async def test_records_get_contiguous_indexes_and_the_tree_grows_with_them(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    assert await put(audit, record(0), record(1)) == 2
    assert await put(audit, record(0, producer="patients")) == 1
    assert await log(audit) == [(0, "scheduling", 0), (1, "scheduling", 1), (2, "patients", 0)]
    async with audit.runtime.database.transaction() as tx:
        assert (await store.read_tree(tx)).size == 3


async def test_a_redelivered_record_is_taken_once_also_within_a_batch(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    first = record(0)
    await put(audit, first, first)
    await put(audit, first, record(1))
    assert [pseq for _, _, pseq in await log(audit)] == [0, 1]
    assert await incidents(audit) == []


async def test_another_record_under_a_used_number_is_an_incident(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    await put(audit, record(0))
    forged = record(0)
    await put(audit, forged)
    await put(audit, forged)
    assert await incidents(audit) == [("sequence-reused", 2)]
    assert len(await log(audit)) == 1


async def test_bytes_altered_on_the_way_are_kept_as_an_incident_and_the_rest_goes_on(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    altered = replace(record(0), record=b'{"not": "what was hashed"}')
    await put(audit, altered, record(1))
    assert await incidents(audit) == [("malformed", 1)]
    assert [pseq for _, _, pseq in await log(audit)] == [1]


async def test_concurrent_batches_never_share_an_index(audit: ServiceHarness, record: RecordFactory) -> None:
    batches = [[record(n, producer=f"p{batch}") for n in range(5)] for batch in range(8)]
    await asyncio.gather(*(put(audit, *batch) for batch in batches))
    assert [index for index, _, _ in await log(audit)] == list(range(40))


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'"', b"\xff", b'{"entity": {"type": "\\u0000"}}'],
    ids=["deep", "cut", "latin", "nul"],
)
async def test_bytes_that_are_no_record_never_stop_the_log(
    audit: ServiceHarness, record: RecordFactory, content: bytes
) -> None:
    odd = IncomingRecord(producer="patients", pseq=0, leaf_hash=leaf_hash(content), record=content)
    await put(audit, odd, record(0))
    assert await incidents(audit) == [("malformed", 1)]
    assert len(await log(audit)) == 1


async def test_a_nul_in_a_search_column_never_stops_the_log(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    await put(audit, record(0, resource_id="\x00"), record(1))
    assert await incidents(audit) == [("malformed", 1)]


async def test_a_record_that_another_service_sent_is_an_incident(
    audit: ServiceHarness, record: RecordFactory
) -> None:
    made, senders = record(0), Senders("")
    headers: Any = {"producer": made.producer, "pseq": made.pseq, "leaf_hash": leaf_hash(made.record).hex()}

    def sent_by(user: str | None) -> IncomingRecord:
        properties = spec.Basic.Properties(headers=headers, user_id=user)
        header = ContentHeader(properties=properties, body_size=len(made.record))
        nowhere: Any = {"delivery": spec.Basic.Deliver(), "channel": None}
        return incoming_of(DeliveredMessage(header=header, body=made.record, **nowhere), senders)

    assert await put(audit, sent_by("billing"), sent_by(None)) == 0
    assert [kind for kind, _ in await incidents(audit)] == ["malformed"]
    assert await put(audit, sent_by(made.producer)) == 1
