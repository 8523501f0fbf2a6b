"""Laboratories over MLLP: who is listened to, what is answered, and when."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from clinic_lab_integration.hl7.framing import BlockReader, frame
from clinic_lab_integration.mllp import Door, MllpServer, certificate_of
from clinic_lab_integration.partners import PartnerDirectory
from clinic_lab_integration.settings import LabSettings
from clinic_shared.health import Health
from clinic_shared.intake import intake_table
from clinic_shared.service import Runtime
from clinic_shared.testing import eventually
from clinic_shared.tls import OwnCertificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from .conftest import Laboratory

WAIT = 60


class Wire:
    """A laboratory's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._blocks = BlockReader(1_000_000)
        self._read: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> list[str]:
        """The next acknowledgement's segments."""
        async with asyncio.timeout(WAIT):
            while not self._read:
                data = await self._reader.read(65536)
                assert data, "the connection was closed"
                self._read += [block.payload for block in self._blocks.feed(data)]
        return self._read.pop(0).decode().rstrip("\r").split("\r")

    async def ask(self, message: bytes) -> list[str]:
        await self.send(frame(message))
        return await self.answer()

    @property
    def certificate_number(self) -> int:
        """The serial number of the certificate that the other end showed."""
        return int(self._writer.get_extra_info("peercert")["serialNumber"], 16)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(WAIT):
            with suppress(ConnectionError):
                return await self._reader.read(1) == b""
        return True

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def listening(lab: Laboratory, **door: Any) -> AsyncIterator[MllpServer]:
    server, stop = MllpServer(lab.lab.runtime, [Door(0, **door)]), asyncio.Event()
    serving = asyncio.create_task(server.serve(stop))
    await eventually(lambda: server.ports or serving.done())
    try:
        yield server
    finally:
        stop.set()
        await serving


@asynccontextmanager
async def connected(server: MllpServer, **options: Any) -> AsyncIterator[Wire]:
    wire = Wire(*await asyncio.open_connection("127.0.0.1", server.ports[0], **options))
    try:
        yield wire
    finally:
        wire.close()


async def configure(lab: Laboratory, **body: Any) -> None:
    answer = await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}", json=body, headers=lab.headers("system-administrator")
    )
    assert answer.status_code == 200, answer.text
    await lab.lab.runtime.get(PartnerDirectory).refresh()


@pytest.fixture
async def server(lab: Laboratory) -> AsyncIterator[MllpServer]:
    await configure(lab, mllp_peers=["127.0.0.1"])
    async with listening(lab) as made:
        yield made


async def kept(lab: Laboratory) -> list[dict[str, Any]]:
    return sorted(await lab.rows(intake_table), key=lambda row: row["id"])


async def test_a_message_is_acknowledged_when_it_is_durable(lab: Laboratory, server, compose) -> None:
    await lab.add_patient()
    async with connected(server) as wire:
        answer = await wire.ask(compose())
        assert answer[1] == "MSA|AA|MSG-1"
        [row] = await kept(lab)
        assert row["body"] == compose().rstrip(b"\r")
    await lab.process()
    assert await lab.result_events() == [("received", 1, "preliminary")]


async def test_the_same_bytes_get_the_same_answer_over_http_and_mllp(
    lab: Laboratory, server, compose
) -> None:
    async with connected(server) as wire:
        answer = await wire.ask(compose())
        assert await wire.ask(compose()) == answer
    assert (await lab.post(compose())).text.rstrip("\r").split("\r") == answer
    assert len(await kept(lab)) == 1


async def test_blocks_may_come_in_pieces_and_together_and_are_answered_in_their_order(
    lab: Laboratory, server, compose
) -> None:
    messages = [compose(msh={10: f"M-{n}"}) for n in range(40)]
    stream = b"".join(map(frame, messages))
    async with connected(server) as wire:
        for piece in (stream[:3], stream[3:1000], stream[1000:-1], stream[-1:]):
            await wire.send(piece)
        answers = [await wire.answer() for _ in messages]
    assert [answer[1] for answer in answers] == [f"MSA|AA|M-{n}" for n in range(40)]
    assert [row["attributes"]["control_id"] for row in await kept(lab)] == [f"M-{n}" for n in range(40)]


async def test_a_block_without_its_last_cr_is_answered_too(lab: Laboratory, server, compose) -> None:
    async with connected(server) as wire:
        await wire.send(b"\x0b" + compose() + b"\x1c")
        assert (await wire.answer())[1] == "MSA|AA|MSG-1"


async def test_several_messages_in_one_block_have_an_answer_each(lab: Laboratory, server, sample) -> None:
    async with connected(server) as wire:
        await wire.send(frame(sample("two-messages")))
        assert [(await wire.answer())[1] for _ in range(2)] == ["MSA|AA|FIRST-0001", "MSA|AA|SECOND-0001"]


async def test_an_acknowledgement_gets_no_answer_and_the_next_message_does(
    lab: Laboratory, server, compose
) -> None:
    async with connected(server) as wire:
        await wire.send(frame(compose("MSA|AA|1", msh={9: "ACK", 10: "A-1"})))
        assert (await wire.ask(compose()))[1] == "MSA|AA|MSG-1"


async def test_too_large_a_message_is_refused_and_the_next_is_taken(lab: Laboratory, server, compose) -> None:
    async with connected(server) as wire:
        answer = await wire.ask(compose() + b"NTE|1||" + b"x" * (10 * 1024 * 1024))
        assert answer[1].startswith("MSA|AE|MSG-1|The message has more bytes than are taken")
        assert (await wire.ask(compose(msh={10: "M-2"})))[1] == "MSA|AA|M-2"
    await lab.process()
    assert await lab.dispositions() == {"answered": 2, "rejected": 1, "parked": 1}


async def test_what_is_no_message_ends_the_connection_and_no_other(lab: Laboratory, server, compose) -> None:
    async with connected(server) as wire, connected(server) as other:
        await wire.send(frame(b"GET / HTTP/1.1"))
        assert await wire.is_closed()
        assert (await other.ask(compose()))[1] == "MSA|AA|MSG-1"


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"mllp_peers": ["192.0.2.0/24"]},
        {"mllp_peers": ["127.0.0.1"], "mllp_certificate_names": ["lab.example.org"]},
    ],
)
async def test_nobody_else_is_listened_to(lab: Laboratory, compose, configuration) -> None:
    await configure(lab, **configuration)
    async with listening(lab) as server, connected(server) as wire:
        assert await wire.is_closed()


@pytest.mark.parametrize("configuration", [{"enabled": False}, {"protocols": ["http"]}])
async def test_who_is_switched_off_meanwhile_is_not_answered(
    lab: Laboratory, server, compose, configuration
) -> None:
    async with connected(server) as wire:
        assert (await wire.ask(compose()))[1] == "MSA|AA|MSG-1"
        await configure(lab, mllp_peers=["127.0.0.1"], **configuration)
        await wire.send(frame(compose(msh={10: "M-2"})))
        assert await wire.is_closed()
    assert len(await kept(lab)) == 1


async def test_two_laboratories_behind_one_address_are_not_confused(lab: Laboratory, server) -> None:
    other = Laboratory(lab.lab, client_id="lab-other")
    await other.register()
    await configure(other, mllp_peers=["127.0.0.0/8"])
    async with connected(server) as wire:  # the narrower network decides
        await wire.send(frame(b"MSH|^~\\&|L|L|||20260115||ORU^R01|M-1|P|2.5\rOBR|1\r"))
        await wire.answer()
    assert [row["attributes"]["partner_id"] for row in await kept(lab)] == [str(lab.partner_id)]
    await configure(other, mllp_peers=["127.0.0.1/32"])
    async with connected(server) as wire:
        assert await wire.is_closed()


async def test_more_connections_than_agreed_are_hung_up_on(lab: Laboratory, compose) -> None:
    await configure(lab, mllp_peers=["127.0.0.1"])
    settings = cast("LabSettings", lab.lab.runtime.settings).model_copy(update={"mllp_connections": 1})
    server, stop = MllpServer(replace(lab.lab.runtime, settings=settings), [Door(0)]), asyncio.Event()
    serving = asyncio.create_task(server.serve(stop))
    await eventually(lambda: server.ports or serving.done())
    async with connected(server) as wire:
        assert (await wire.ask(compose()))[1] == "MSA|AA|MSG-1"
        async with connected(server) as other:
            assert await other.is_closed()
        assert (await wire.ask(compose(msh={10: "M-2"})))[1] == "MSA|AA|M-2"
    stop.set()
    await serving


async def test_being_told_to_stop_answers_what_was_read(lab: Laboratory, compose) -> None:
    await configure(lab, mllp_peers=["127.0.0.1"])
    async with listening(lab) as server:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", server.ports[0]))
        assert (await wire.ask(compose()))[1] == "MSA|AA|MSG-1"
    assert await wire.is_closed()
    wire.close()


class TestTls:
    async def test_a_certificate_says_who_connects(self, lab: Laboratory, compose, authority) -> None:
        await configure(lab, mllp_certificate_names=["lab.example.org"])
        async with listening(lab, certificate=authority.server(lab.lab.runtime)) as server:
            async with connected(server, ssl=authority.client("lab.example.org")) as wire:
                assert (await wire.ask(compose()))[1] == "MSA|AA|MSG-1"
            async with connected(server, ssl=authority.client("other.example.org")) as wire:
                assert await wire.is_closed()

    async def test_without_a_certificate_nobody_gets_in(self, lab: Laboratory, authority) -> None:
        await configure(lab, mllp_peers=["127.0.0.1"])
        async with listening(lab, certificate=authority.server(lab.lab.runtime)) as server:
            with suppress(ssl.SSLError, ConnectionError):
                async with connected(server, ssl=authority.client(None)) as wire:
                    assert await wire.is_closed()
        assert await kept(lab) == []

    async def test_an_address_may_be_demanded_besides(self, lab: Laboratory, authority) -> None:
        await configure(lab, mllp_peers=["192.0.2.1"], mllp_certificate_names=["lab.example.org"])
        async with (
            listening(lab, certificate=authority.server(lab.lab.runtime)) as server,
            connected(server, ssl=authority.client("lab.example.org")) as wire,
        ):
            assert await wire.is_closed()

    async def test_a_renewed_certificate_is_shown_without_a_restart(
        self, lab: Laboratory, compose, authority
    ) -> None:
        await configure(lab, mllp_certificate_names=["lab.example.org"])
        runtime, stop = lab.lab.runtime, asyncio.Event()
        laboratory, certificate = authority.client("lab.example.org"), authority.server(runtime)
        async with listening(lab, certificate=certificate) as server:
            following = asyncio.create_task(certificate.follow(Health.of(runtime), stop))
            try:
                async with connected(server, ssl=laboratory) as before:
                    first = before.certificate_number
                    assert (await before.ask(compose()))[1] == "MSA|AA|MSG-1"
                    second = authority.renew("localhost")
                    assert second != first
                    await eventually(partial(self._shown, server, laboratory, second), within_seconds=WAIT)
                    assert (await before.ask(compose()))[1] == "MSA|AA|MSG-1"
            finally:
                stop.set()
                await following

    async def test_half_a_renewal_changes_nothing(self, lab: Laboratory, authority) -> None:
        await configure(lab, mllp_certificate_names=["lab.example.org"])
        laboratory = authority.client("lab.example.org")
        certificate = authority.server(lab.lab.runtime)
        async with listening(lab, certificate=certificate) as server:
            async with connected(server, ssl=laboratory) as wire:
                first = wire.certificate_number
            second = authority.renew("localhost", certificate_only=True)
            with pytest.raises(ssl.SSLError):
                certificate.renew()
            assert second != first
            assert await self._shown(server, laboratory, first)

    async def _shown(self, server: MllpServer, laboratory: ssl.SSLContext, number: int) -> bool:
        async with connected(server, ssl=laboratory) as wire:
            return wire.certificate_number == number


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class Authority:
    """Certificates for the test, ours and laboratories'."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Authority")])
        self._write("ca", self._sign(self._name, self._key, is_authority=True), self._key)

    def server(self, runtime: Runtime) -> OwnCertificate:
        certificate, key = self._issue("localhost")
        settings = cast("LabSettings", runtime.settings).model_copy(
            update={
                "mllp_certificate_file": certificate,
                "mllp_key_file": key,
                "mllp_client_ca_file": self._folder / "ca.pem",
            }
        )
        return certificate_of(settings)

    def client(self, name: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._folder / "ca.pem"))
        context.check_hostname = False
        if name is not None:
            context.load_cert_chain(*self._issue(name))
        return context

    def renew(self, name: str, *, certificate_only: bool = False) -> int:
        """Replace a certificate and its key on disk; returns the new one's number."""
        key = (self._folder / f"{name}.key").read_bytes()
        certificate, _ = self._issue(name)
        if certificate_only:
            (self._folder / f"{name}.key").write_bytes(key)
        return x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number

    def _issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._write(name, self._sign(subject, key), key)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True, "key_cert_sign": is_authority}
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )
        # What Python 3.13 and later demand of a certificate (VERIFY_X509_STRICT).
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension, critical in (
            (x509.BasicConstraints(ca=is_authority, path_length=None), True),
            (x509.KeyUsage(**usage), True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (issuer, False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())

    def _write(
        self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> tuple[Path, Path]:
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
