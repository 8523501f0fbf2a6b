"""The signing key is replaced while tokens are issued and verified: no request fails."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from clinic_identity import key_rotation
from clinic_identity.desk import Desk
from clinic_identity.key_rotation import Step, rotate
from clinic_identity.keys import SigningKeyMissingError
from clinic_shared.app import create_app
from clinic_shared.auth import RemoteKeys, TokenVerifier, claims_of
from clinic_shared.errors import UnauthenticatedError
from clinic_shared.health import Health
from clinic_shared.reloading import SecretFiles, reload
from clinic_shared.testing import ISSUER, FixedClock, ServiceHarness

from .conftest import CHEAP, Installation

TICK = timedelta(seconds=10)
VERIFIERS = 30
"""As many as there are ticks between two readings of the keys: at each, somebody has just read them."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(identity: ServiceHarness) -> AsyncIterator[str]:
    """Serve identity on a real port, for those who read its keys."""
    app = create_app(identity.service, identity.runtime)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/.well-known/jwks.json"
        finally:
            server.should_exit = True
            await task


class Rotation:
    """Identity and many verifiers on one clock, which goes on in ticks."""

    def __init__(self, identity: ServiceHarness, url: str, folder: Path, clock: FixedClock) -> None:
        self._identity = identity
        self._clock = clock
        self._folder = folder
        self._files = SecretFiles(folder)
        self._began_at = clock.now()
        self._sources = [RemoteKeys(url, monotonic=self._monotonic) for _ in range(VERIFIERS)]
        self._verifiers = [TokenVerifier(one, issuer=ISSUER, clock=clock) for one in self._sources]
        self._tokens: list[tuple[Any, str]] = []
        self.refused = 0
        self.steps: list[Step] = []

    def _monotonic(self) -> float:
        return (self._clock.now() - self._began_at).total_seconds()

    async def begin(self) -> None:
        """Let one verifier after the other read the keys, a tick apart."""
        for verifier in self._verifiers:
            await self._verify(verifier, self._issue())
            self._clock.advance(seconds=TICK.total_seconds())

    async def tick(self) -> None:
        """Take the step that is due, unless the rotation is over; then issue and verify."""
        if self.steps[-1:] != [Step.FINISHED]:
            step = rotate(self._folder, now=self._clock.now()).step
            self.steps += [] if step is Step.WAITING else [step]
        if self._files.have_changed():
            assert reload(self._identity.runtime.reload, Health.of(self._identity.runtime))
        now = self._clock.now()
        self._tokens = [(until, token) for until, token in self._tokens if until > now]
        self._tokens.append((now + timedelta(seconds=300), self._issue()))
        for verifier in self._verifiers:
            await self._verify(verifier, self._tokens[-1][1])
            await self._verify(verifier, self._tokens[0][1])
        await asyncio.gather(*(one._background for one in self._sources if one._background))
        self._clock.advance(seconds=TICK.total_seconds())

    def _issue(self) -> str:
        claims = claims_of(self._identity.principal(), issued_at=self._clock.now())
        return self._identity.runtime.get(Desk).keys.signer.sign(claims)

    async def _verify(self, verifier: TokenVerifier, token: str) -> None:
        try:
            await verifier.verify(token)
        except UnauthenticatedError:
            self.refused += 1


@pytest.fixture
async def rotation(
    installation: Installation, tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rotation]:
    for name, value in {
        "CLINIC_DATABASE_URL": installation.database_url,
        "CLINIC_AMQP_URL": installation.amqp_url,
        "CLINIC_TOKEN_ISSUER": ISSUER,
        "CLINIC_SECRETS_DIR": str(tmp_path),
        **{f"CLINIC_{name.upper()}": str(value) for name, value in CHEAP.items()},
    }.items():
        monkeypatch.setenv(name, value)
    async with installation.start(secrets_dir=tmp_path) as identity, served(identity) as url:
        yield Rotation(identity, url, tmp_path, clock)


async def go_through(rotation: Rotation) -> None:
    await rotation.begin()
    # Two readings of the keys by everybody, and one more after the old key is withdrawn.
    for _ in range(4 * VERIFIERS):
        await rotation.tick()
    assert rotation.steps == [Step.PUBLISHED, Step.SIGNING, Step.FINISHED]


async def test_the_key_is_replaced_and_no_token_refused(rotation: Rotation, tmp_path: Path) -> None:
    before = (tmp_path / "signing-key.pem").read_bytes()
    await go_through(rotation)
    assert rotation.refused == 0
    assert (tmp_path / "signing-key.pem").read_bytes() != before
    files = os.listdir(tmp_path)  # noqa: PTH208  # pathlib's is lazy
    assert [name for name in files if name.startswith("signing-key")] == ["signing-key.pem"]


@pytest.mark.parametrize("interval", ["PUBLISHED_FOR", "SIGNED_FOR"])
async def test_a_step_taken_too_early_is_seen(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch, interval: str
) -> None:
    monkeypatch.setattr(key_rotation, interval, TICK)
    await go_through(rotation)
    assert rotation.refused > 0


def test_without_a_first_key_there_is_nothing_to_rotate(tmp_path: Path, clock: FixedClock) -> None:
    with pytest.raises(SigningKeyMissingError):
        rotate(tmp_path, now=clock.now())
    assert not list(tmp_path.iterdir())
