"""A process is ready when it answers itself, not when somebody else does on its port."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clinic_local import loopback
from clinic_local.children import Child
from clinic_local.ports import LOOPBACK, free_port
from clinic_local.supervisor import _why_it_ended

LONG = 60


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve(port: int) -> None:
    ThreadingHTTPServer((LOOPBACK, port), Ready).serve_forever()


@contextmanager
def running(child: Child) -> Iterator[Child]:
    child.start()
    assert child.pid is not None
    try:
        yield child
    finally:
        child.signal(signal.SIGKILL)
        while child.pid is not None:
            child.reap()


def child(tmp_path: Path, port: int, *, waits: bool = False) -> Child:
    """Return a gateway that listens on the port or, with `waits`, hasn't come so far."""
    target = signal.pause if waits else partial(serve, port)
    return Child("gateway", "gateway", target, {}, tmp_path / "gateway.log", port)


def until_ready(gateway: Child) -> None:
    while not gateway.check():
        assert gateway.reap() is None, gateway.log.read_text(encoding="utf-8")


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[int]:
    """A port on which another system answers, and says that it is ready."""
    port = free_port()
    with running(child(tmp_path / "stranger", port)) as stranger:
        until_ready(stranger)
        yield port


def test_another_system_that_answers_on_the_gateways_port_is_not_taken_for_it(
    taken: int, tmp_path: Path
) -> None:
    with running(child(tmp_path, taken, waits=True)) as gateway:
        assert loopback.answers(f"http://{LOOPBACK}:{taken}/readyz", timeout_seconds=LONG)
        assert not gateway.check()
        assert gateway.as_state().state == "starting"


def test_who_cant_have_its_port_is_told_who_has_it(taken: int, tmp_path: Path) -> None:
    gateway = child(tmp_path, taken)
    gateway.start()
    while gateway.reap() is None:
        assert not gateway.check()
    assert f"port {taken} was taken meanwhile by" in _why_it_ended(gateway)


def test_a_process_that_answers_itself_is_ready(tmp_path: Path) -> None:
    with running(child(tmp_path, free_port())) as gateway:
        until_ready(gateway)
        assert gateway.as_state().state == "running"
