"""Databases, broker and its management API over TLS: what isn't vouched for is not talked to."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from clinic_local.paths import state_path
from clinic_local.ports import LOOPBACK, free_port
from clinic_local.servers import Postgres, Rabbit
from clinic_shared.broker import BrokerUnavailableError, Connection
from clinic_shared.database import Database
from clinic_shared.management import Management
from clinic_shared.testing_certificates import write_certificate
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

pytestmark = pytest.mark.servers


@dataclass(frozen=True)
class Servers:
    postgres_url: str
    amqps_url: str
    management_url: str
    authority: Path
    stranger: Path
    """Of an authority that vouches for none of them."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    root, folder, other = (tmp_path_factory.mktemp(name) for name in ("checkout", "certificates", "stranger"))
    certificate, authority = write_certificate(folder)
    _, stranger = write_certificate(other)
    amqps, management = free_port(), free_port()
    rabbit = Rabbit(root, environ={}, settings=_listeners(certificate, amqps, management))
    postgres = Postgres(root, environ={}).start(root / ".run" / "postgres", durable=False)
    try:
        broker = rabbit.start(root / ".run" / "rabbitmq", durable=False)
        try:
            _speak_tls(postgres.admin_url, certificate)
            credentials = broker.amqp_url.removeprefix("amqp://").partition("@")[0]
            yield Servers(
                postgres.admin_url,
                f"amqps://{credentials}@{LOOPBACK}:{amqps}/%2F",
                f"https://{credentials}@{LOOPBACK}:{management}",
                authority,
                stranger,
            )
        finally:
            broker.stop()
    finally:
        postgres.stop()
        shutil.rmtree(state_path(root), ignore_errors=True)


def _listeners(certificate: Path, amqps: int, management: int) -> dict[str, str]:
    shown = {"certfile": str(certificate), "keyfile": str(certificate)}
    return {
        "listeners.ssl.local": f"{LOOPBACK}:{amqps}",
        "ssl_options.verify": "verify_none",
        "ssl_options.fail_if_no_peer_cert": "false",
        **{f"ssl_options.{name}": value for name, value in shown.items()},
        "management.ssl.ip": LOOPBACK,
        "management.ssl.port": str(management),
        **{f"management.ssl.{name}": value for name, value in shown.items()},
    }


def _speak_tls(admin_url: str, certificate: Path) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        row = connection.execute("SELECT current_setting('data_directory')").fetchone()
        assert row is not None
        data = Path(row[0])
        own = data / "machine.pem"
        shutil.copy(certificate, own)
        owner = data.stat()
        os.chown(own, owner.st_uid, owner.st_gid)
        own.chmod(0o600)
        for name in ("ssl_cert_file", "ssl_key_file"):
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), str(own)))
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("SELECT pg_reload_conf()")


def database_of(servers: Servers, authority: Path) -> Database:
    address = servers.postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
    return Database(f"{address}?sslmode=verify-full&sslrootcert={authority}", service="patients")


async def test_a_database_is_talked_to_over_tls_once_its_authority_vouches_for_it(servers: Servers) -> None:
    database = database_of(servers, servers.authority)
    async with database.transaction() as tx:
        statement = text("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl")
        assert [row.version for row in await tx.fetch_all(statement)] in (["TLSv1.2"], ["TLSv1.3"])
    await database.engine.dispose()


async def test_a_database_for_which_nobody_vouches_is_not_talked_to(servers: Servers) -> None:
    database = database_of(servers, servers.stranger)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        async with database.transaction():
            pass
    await database.engine.dispose()


async def test_a_broker_is_talked_to_over_tls_once_its_authority_vouches_for_it(servers: Servers) -> None:
    connection = Connection(f"{servers.amqps_url}?cafile={servers.authority}", name="tls")
    channel = await connection.channel(confirms=True)
    queue = await channel.declare_queue("over-tls")
    assert queue.declaration_result.message_count == 0
    await connection.close()


async def test_a_broker_for_which_nobody_vouches_is_not_talked_to(servers: Servers) -> None:
    for address in (servers.amqps_url, f"{servers.amqps_url}?cafile={servers.stranger}"):
        connection = Connection(address, name="tls")
        with pytest.raises(BrokerUnavailableError) as refused:
            await connection.get()
        # The first cause is the back-off's, the second the library's own word.
        assert "CERTIFICATE_VERIFY_FAILED" in str(getattr(refused.value.__cause__, "__cause__", ""))
        await connection.close()


async def test_the_management_api_is_asked_over_tls_once_its_authority_vouches_for_it(
    servers: Servers,
) -> None:
    async with Management(
        servers.management_url, servers.amqps_url, authority=servers.authority
    ) as management:
        assert any(exchange["name"] == "amq.topic" for exchange in await management.list("exchanges"))
    async with Management(servers.management_url, servers.amqps_url, authority=servers.stranger) as doubted:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await doubted.list("exchanges")


async def test_whom_the_management_api_must_be_vouched_for_by_is_read_again(
    servers: Servers, tmp_path: Path
) -> None:
    trusted, next_one = tmp_path / "trusted.pem", tmp_path / "next.pem"
    shutil.copy(servers.authority, trusted)
    async with Management(servers.management_url, servers.amqps_url, authority=trusted) as management:
        assert await management.list("exchanges")
        shutil.copy(servers.stranger, next_one)
        next_one.replace(trusted)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await management.list("exchanges")
        shutil.copy(servers.authority, next_one)
        next_one.replace(trusted)
        assert await management.list("exchanges")
