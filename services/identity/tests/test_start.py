"""What a start leaves behind: roles of the taxonomy, and the first administrator."""

import asyncio
from typing import Any

import pytest
from clinic_identity.domain import WeakPasswordError
from clinic_identity.housekeeping import purge
from clinic_identity.roles import refresh_roles
from clinic_identity.tables import attempt_counter, role, session, staff
from clinic_shared import contracts
from clinic_shared.testing import ServiceHarness
from sqlalchemy import func, select, update

from .conftest import ADMIN_LOGIN, ADMIN_PASSWORD, Installation, Network


async def test_roles_are_those_of_the_taxonomy(network: Network) -> None:
    answer = await network.get("/v1/roles")
    listed = {role["code"]: role["scopes"] for role in answer.json()}
    assert listed == contracts.scopes_by_role()


async def test_a_newer_releases_roles_are_not_put_back(identity: ServiceHarness) -> None:
    async with identity.runtime.database.transaction() as tx:
        await tx.execute(
            update(role).where(role.c.code == "doctor").values(taxonomy_version=99, scopes=["profile.read"])
        )
        await refresh_roles(tx, identity.runtime.settings.contracts_dir)
        scopes = (await tx.execute(select(role.c.scopes).where(role.c.code == "doctor"))).scalar_one()
    assert scopes == ["profile.read"]


async def test_replicas_that_start_together_make_one_administrator(installation: Installation) -> None:
    async def start() -> int:
        async with installation.start() as running, running.runtime.database.transaction() as tx:
            return int((await tx.execute(select(func.count()).select_from(staff))).scalar_one())

    assert await asyncio.gather(*(start() for _ in range(4))) == [1, 1, 1, 1]


async def test_another_start_with_another_password_changes_nothing(installation: Installation) -> None:
    async with installation.start():
        pass
    async with installation.start(bootstrap_admin_password="quite another password") as again:
        network = Network(again, again.principal())
        assert (await network.log_in(ADMIN_LOGIN, "quite another password")).status_code == 401
        assert (await network.log_in(ADMIN_LOGIN, ADMIN_PASSWORD)).status_code == 200


async def test_without_settings_there_is_no_administrator(installation: Installation) -> None:
    nobody = {"bootstrap_admin_login": None, "bootstrap_admin_password": None}
    async with installation.start(**nobody) as running:
        assert await running.events() == []


async def test_a_weak_first_password_stops_the_start(installation: Installation) -> None:
    with pytest.raises(WeakPasswordError):
        async with installation.start(bootstrap_admin_password="admin"):
            pass


async def test_old_sessions_and_failures_are_forgotten(network: Network, clock: Any) -> None:
    await network.session_of(ADMIN_LOGIN, ADMIN_PASSWORD)
    await network.log_in("nobody@example.org", "a guess of mine")

    async def counted() -> list[int]:
        async with network.identity.runtime.database.transaction() as tx:
            tables = (session, attempt_counter)
            return [(await tx.execute(select(func.count()).select_from(t))).scalar_one() for t in tables]

    await purge(network.identity.runtime)
    assert await counted() == [1, 3]  # the address, the account that nobody has, and both together
    clock.advance(days=31)
    await purge(network.identity.runtime)
    assert await counted() == [0, 0]
