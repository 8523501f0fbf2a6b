"""The audit log under load, how fast it is verified, and what protecting costs a request."""

import asyncio
import logging
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any
from uuid import UUID

import aio_pika
import httpx
import structlog
from clinic_audit.app import service as audit
from clinic_audit.detecting import detect
from clinic_audit.intake import take_records
from clinic_audit.recording import IncomingRecord, record_batch
from clinic_audit.signing import Signer, sign_checkpoint, sign_checkpoints
from clinic_audit.tables import audit_record
from clinic_audit.verification import verify_log
from clinic_patients.app import service as patients
from clinic_shared import contracts, topology
from clinic_shared.app import create_app
from clinic_shared.audit import Action, AuditEntry, canonical_record, leaf_hash
from clinic_shared.auth import TokenSigner, TokenVerifier, claims_of
from clinic_shared.consumer import apply
from clinic_shared.context import Context
from clinic_shared.encryption.ciphers import DataKey
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.envelope import Envelope, encode_body
from clinic_shared.events import Origin
from clinic_shared.ids import uuid7
from clinic_shared.policy import Record, Relation, current
from clinic_shared.principal import Principal
from clinic_shared.service import Runtime, running
from sqlalchemy import func, select

from .figures import Figure, needs_nothing, needs_servers
from .servers import ISSUER, SECONDS, Bench, database_of

A_SECOND = 2_200
"""Records published: a tenth more than has to be sustained."""
VERIFIED = 200_000
BATCH = 1_000
DECISIONS = 5_000
AT_MOST_BEHIND = 30


@needs_servers
async def audit_intake(bench: Bench) -> list[Figure]:
    """Publish at a steady rate to a worker that also signs and detects; how far behind is each record's entry?"""
    bench.prepare(audit)
    await topology.declare_all(bench.rabbitmq.amqp_url, bench.rabbitmq.management_url)
    stop = asyncio.Event()
    async with bench.runtime(audit) as runtime:
        working = [
            asyncio.create_task(loop(runtime, stop)) for loop in (take_records, sign_checkpoints, detect)
        ]
        published = await asyncio.get_running_loop().run_in_executor(
            ProcessPoolExecutor(1, get_context("spawn")), publish, bench.rabbitmq.amqp_url
        )
        seconds, lags = await until_taken(runtime, published)
        stop.set()
        await asyncio.gather(*working)
    p99 = statistics.quantiles(lags, n=100)[98]
    return [
        Figure.floor("audit records into the log, sustained", published / seconds, "/s", target=2000),
        Figure.ceiling("from an audit record to its place in the log, p99", p99 * 1000, "ms", target=2000),
    ]


def publish(url: str) -> int:
    """In a process of its own, as producers are."""
    return asyncio.run(publish_steadily(url))


async def publish_steadily(url: str) -> int:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.get_exchange(topology.AUDIT_EXCHANGE)
        begun, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - begun) < SECONDS:
            while sent < elapsed * A_SECOND:
                await exchange.publish(message(sent), "patients")
                sent += 1
            await asyncio.sleep(0.005)
    return sent


def message(pseq: int) -> aio_pika.Message:
    body = a_record()
    headers: Any = {"producer": "patients", "pseq": pseq, "leaf_hash": leaf_hash(body).hex()}
    return aio_pika.Message(body, headers=headers, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)


def a_record() -> bytes:
    entry = AuditEntry(
        action=Action.READ,
        resource_type="Patient",
        resource_id=uuid7(),
        patient_id=uuid7(),
        details={"permission": "patients.read", "decision": "relationship", "relationship": "appointment"},
    )
    return canonical_record(entry, producer="patients", recorded_at=datetime.now(UTC), context=Context())


async def until_taken(runtime: Runtime, published: int) -> tuple[float, list[float]]:
    """Return from the first record's making until the last one is in, and how long each one took."""
    deadline = time.monotonic() + AT_MOST_BEHIND
    count = 0
    while count < published and time.monotonic() < deadline:
        async with runtime.database.transaction() as tx:
            row = await tx.fetch_one(select(func.count()).select_from(audit_record))
        count = int(row[0]) if row else 0
        await asyncio.sleep(0.1)
    async with runtime.database.transaction() as tx:
        rows = await tx.fetch_all(select(audit_record.c.recorded_at, audit_record.c.received_at))
    assert len(rows) == published, f"{len(rows)} of {published} records were taken"
    first, last = min(row.recorded_at for row in rows), max(row.received_at for row in rows)
    return (last - first).total_seconds(), [(r.received_at - r.recorded_at).total_seconds() for r in rows]


@needs_servers
async def audit_verification(bench: Bench) -> list[Figure]:
    bench.prepare(audit)
    async with bench.runtime(audit) as runtime:
        signer = runtime.get(Signer)
        for batch in batches():
            async with runtime.database.transaction() as tx:
                await record_batch(tx, batch)
                await sign_checkpoint(tx, signer)
        begun = time.monotonic()
        async with runtime.database.transaction() as tx:
            report = await verify_log(tx, signer.public_key)
        seconds = time.monotonic() - begun
    assert report.intact, report.findings
    assert report.records == VERIFIED
    return [Figure.floor("audit records verified", VERIFIED / seconds, "/s", target=100_000)]


def batches() -> Iterator[list[IncomingRecord]]:
    for start in range(0, VERIFIED, BATCH):
        records = [a_record() for _ in range(BATCH)]
        yield [
            IncomingRecord(producer="patients", pseq=start + n, leaf_hash=leaf_hash(body), record=body)
            for n, body in enumerate(records)
        ]


@needs_nothing
def decisions() -> list[Figure]:
    """A token that was never seen before, checked, and what its bearer may do with a record decided."""
    return [
        Figure.ceiling(
            "token check and policy decision, p50",
            1e6 * statistics.median(asyncio.run(decide())),
            "us",
            target=150,
        )
    ]


async def decide() -> list[float]:
    signer = TokenSigner.generate(issuer=ISSUER)
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER)
    now, policy = datetime.now(UTC), current()
    doctor = uuid7()
    tokens = [
        signer.sign(claims_of(a_doctor(doctor), issued_at=now, lifetime_seconds=300)) for _ in range(200)
    ]
    spent = []
    for n in range(DECISIONS):
        if n % len(tokens) == 0:
            verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER)
        begun = time.perf_counter()
        caller = await verifier.verify(tokens[n % len(tokens)])
        decision = policy.decide(caller, "chart.read", a_chart(doctor, now), now=now)
        spent.append(time.perf_counter() - begun)
        assert decision.allowed
    return spent


def a_doctor(subject: UUID) -> Principal:
    return Principal(
        subject=subject,
        kind="staff",
        roles=frozenset({"doctor"}),
        scopes=frozenset({"chart.read", "patients.read"}),
        token_id=str(uuid7()),
    )


def a_chart(doctor: UUID, now: datetime) -> Record:
    relation = Relation(kind="appointment", source_id=doctor, practitioner_id=doctor, begins_at=now)
    return Record(patient_id=doctor, relations=(relation,))


REQUESTS = 300


@needs_servers
async def encryption(bench: Bench) -> list[Figure]:
    """Of the time that registering and reading a patient takes inside the service, how much goes into ciphers."""
    bench.prepare(patients)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signer = TokenSigner.generate(issuer=ISSUER)
    settings = patients.settings(
        environment="test",
        database_url=bench.postgres.url_of(database_of(patients)),
        amqp_url=bench.rabbitmq.amqp_url,
        token_issuer=ISSUER,
        secrets_dir=bench.secrets_dir,
    )
    verifier = TokenVerifier.static(signer.public_jwks(), issuer=ISSUER)
    async with running(patients, settings, verifier=verifier) as runtime:
        await know_a_centre(runtime)
        transport = httpx.ASGITransport(app=create_app(patients, runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://patients.bench") as http:
            await serve(http, signer, range(20))
            with counted_ciphers() as spent:
                begun = time.perf_counter()
                await serve(http, signer, range(20, REQUESTS))
                took = time.perf_counter() - begun
    share = 100 * sum(spent) / took
    return [Figure.ceiling("ciphers' share of registering and reading a patient", share, "%", target=5)]


CENTRE = UUID("01900000-0000-7000-8000-ce0000000001")


async def know_a_centre(runtime: Runtime) -> None:
    data = contracts.examples("identity.centre-opened.v1")[0]["data"]
    now = datetime.now(UTC)
    envelope = Envelope(
        id=uuid7(),
        source="identity",
        type="identity.centre-opened.v1",
        subject=CENTRE,
        time=now,
        aggregate_version=1,
        partition_key=CENTRE,
        recorded_at=now,
        origin=Origin.LIVE,
        correlation_id=uuid7(),
    )
    await apply(runtime, envelope, encode_body({**data, "centre_id": str(CENTRE)}, None))


async def serve(http: httpx.AsyncClient, signer: TokenSigner, numbers: range) -> None:
    scopes = frozenset({"patients.register", "patients.read"})
    clerk = Principal(
        subject=uuid7(), kind="staff", roles=frozenset({"registrar"}), scopes=scopes, network=True
    )
    token = signer.sign(claims_of(clerk, issued_at=datetime.now(UTC), lifetime_seconds=300))
    for number in numbers:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid7())}
        answer = await http.post("/v1/patients", json=a_person(number), headers=headers)
        assert answer.is_success, answer.text
        read = await http.get(f"/v1/patients/{answer.json()['patient_id']}", headers=headers)
        assert read.is_success, read.text


def a_person(number: int) -> dict[str, Any]:
    return {
        "name": {"family": f"Тестова-{number}", "given": "Анна", "patronymic": "Примеровна"},
        "birth_on": "1990-01-01",
        "sex": "female",
        "phones": [f"+7000{number:07}"],
        "emails": [f"anna.{number}@example.org"],
        "language": "ru",
        "centre_id": str(CENTRE),
    }


@contextmanager
def counted_ciphers() -> Iterator[list[float]]:
    """Take the time of everything that enciphers, deciphers or blinds; what calls the other counts once."""
    spent: list[float] = []
    depth = 0

    def timed(method: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal depth
            depth, begun = depth + 1, time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                depth -= 1
                if depth == 0:
                    spent.append(time.perf_counter() - begun)

        return call

    places: list[tuple[Any, str]] = [
        (Keyring, name) for name in ("new_key", "data_key", "rewrap", "seal_row", "open_row", "blind")
    ]
    places += [(DataKey, name) for name in ("seal", "open")]
    plain = [(owner, name, getattr(owner, name)) for owner, name in places]
    for owner, name, method in plain:
        setattr(owner, name, timed(method))
    try:
        yield spent
    finally:
        for owner, name, method in plain:
            setattr(owner, name, method)
