"""The log as an audit repository elsewhere receives it: RFC 5424 over TLS, every record, in order."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from clinic_audit.recording import record_batch
from clinic_audit.settings import AuditSettings
from clinic_audit.syslog_feed import NAME, connected, feed_syslog, send_some
from clinic_shared.audit import Outcome
from clinic_shared.health import Health
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.testing import ServiceHarness, eventually
from clinic_shared.testing_certificates import write_certificate

from .conftest import RecordFactory

DOCTOR = Principal(subject=uuid7(), kind="staff", roles=frozenset({"doctor"}))


class Repository:
    """A syslog receiver: takes frames apart by their length."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                length = await reader.readuntil(b" ")
                self.messages.append(await reader.readexactly(int(length)))
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    def documents(self) -> list[Element]:
        return [fromstring(message[message.index(b"<?xml") :]) for message in self.messages]  # noqa: S314  # our own


@pytest.fixture
async def repository(tmp_path: Path, audit: ServiceHarness) -> AsyncIterator[Repository]:
    """A receiver that the service is told to send to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, authority = write_certificate(tmp_path)
    context.load_cert_chain(certificate)
    receiver = Repository()
    server = await asyncio.start_server(receiver.take, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    given = {"audit_syslog_address": f"127.0.0.1:{port}", "audit_syslog_ca_file": authority}
    audit.runtime.settings = audit.runtime.settings.model_copy(update=given)
    yield receiver
    server.close()
    for connection in receiver.connections:
        connection.close()


async def put(audit: ServiceHarness, record: RecordFactory, *numbers: int, **entry: object) -> None:
    async with audit.runtime.database.transaction() as tx:
        await record_batch(tx, [record(number, **entry) for number in numbers])


def settings_of(audit: ServiceHarness) -> AuditSettings:
    settings = audit.runtime.settings
    assert isinstance(settings, AuditSettings)
    return settings


async def test_every_record_arrives_in_order_as_a_dicom_audit_message(
    audit: ServiceHarness, record: RecordFactory, repository: Repository
) -> None:
    patient_id = uuid7()
    await put(audit, record, 0, principal=DOCTOR, patient_id=patient_id)
    await put(audit, record, 1, principal=DOCTOR, outcome=Outcome.DENIED)
    stop = asyncio.Event()
    feeding = asyncio.create_task(feed_syslog(audit.runtime, stop))
    await eventually(lambda: len(repository.messages) == 2, within_seconds=60)
    await put(audit, record, 2)
    await eventually(lambda: len(repository.messages) == 3, within_seconds=60)
    stop.set()
    await feeding
    [read, refused, _] = repository.messages
    assert read.startswith(b"<85>1 2026-03-02T06:00:00.000000Z ")
    assert b" polyclinic-scheduling - DICOM+RFC3881 - \xef\xbb\xbf<?xml" in read
    assert refused.startswith(b"<84>1 ")
    event = repository.documents()[0]
    user, server = event.findall("ActiveParticipant")
    assert (user.get("UserID"), user.get("UserIsRequestor")) == (str(DOCTOR.subject), "true")
    assert server.get("UserID") == "scheduling"
    assert event.find("EventIdentification/EventID").get("csd-code") == "110110"  # type: ignore[union-attr]
    objects = [one.get("ParticipantObjectID") for one in event.findall("ParticipantObjectIdentification")]
    assert objects[0] == str(patient_id)


async def test_after_a_broken_connection_nothing_is_missing(
    audit: ServiceHarness, record: RecordFactory, repository: Repository
) -> None:
    await put(audit, record, *range(5))
    async with connected(settings_of(audit)) as writer:
        assert await send_some(audit.runtime, writer, 0) == 5
    await put(audit, record, *range(5, 8))
    stop, health = asyncio.Event(), Health.of(audit.runtime)
    health.report(NAME, "failed with ConnectionError")
    feeding = asyncio.create_task(feed_syslog(audit.runtime, stop))
    await eventually(lambda: len(repository.messages) == 13, within_seconds=60)
    await eventually(lambda: NAME not in health.reasons, within_seconds=60)
    stop.set()
    await feeding


async def test_a_repository_with_another_certificate_gets_nothing(
    audit: ServiceHarness, record: RecordFactory, repository: Repository
) -> None:
    await put(audit, record, 0)
    unknown = settings_of(audit).model_copy(update={"audit_syslog_ca_file": None})
    with pytest.raises(ssl.SSLCertVerificationError):
        async with connected(unknown):
            pass
    assert repository.messages == []
