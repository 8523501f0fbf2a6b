"""Everything that can be done to a running system, by name; a seed decides what is done when, and to whom.

A nemesis undoes what it did before it returns, so that each of them finds whatever the ones before it left
of a system that is getting over them. It tells whom it struck, and whether the fault was really met.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import httpx
from clinic_local.state import RunState, is_running
from clinic_shared import contracts

from . import planting
from .harm import stopped
from .people import Patient
from .proxy import ACKNOWLEDGED, BOTH, COMMITTED, CONFIRMED, FaultProxy, Landmark, Way
from .server_harm import (
    WORKED_ON,
    ask_whether_it_answers,
    database_closed,
    disk_full,
    table_locked,
    terminate_sessions,
)
from .stage import Stage
from .traffic import PAYMENTS, Flow
from .waiting import undo

POSTGRES, RABBITMQ = "postgres", "rabbitmq"
LAB, SCHEDULING = "lab-integration", "scheduling"
TRAP_SECONDS = 2.5
RARE = 0
"""Takes a good part of a minute: only in runs that are long."""
HEADS = 16_000
TOO_MANY_BYTES = 11_000_000
START_SECONDS = 600
CRASH_POINTS = {
    LAB: (
        *("intake.accept.before", "intake.durable.after", "intake.process.before", "intake.process.commit"),
        *("relay.publish.before", "relay.publish.after", "relay.confirm.after", "relay.mark.after"),
        *("consumer.effect.before", "consumer.commit.after", "commit.before", "commit.after"),
    ),
    "patients": (
        *("consumer.deliver", "consumer.effect.before", "consumer.commit.after", "consumer.ack.after"),
        *("commit.before", "commit.after", "relay.publish.after", "relay.confirm.after"),
    ),
    SCHEDULING: ("commit.before", "commit.after", "relay.publish.after", "relay.mark.after"),
    "billing": (
        *("intake.durable.after", "intake.process.before", "intake.process.commit", "provider.call.after"),
        *("receipt.lease.after", "receipt.describe.after", "receipt.register.after", "receipt.report.after"),
        *("receipt.save.after", "consumer.commit.after", "relay.confirm.after"),
    ),
    "notifications": ("consumer.commit.after", "message.call.after", "commit.before"),
    "reporting": ("consumer.deliver", "consumer.commit.after", "consumer.ack.after"),
    "audit": ("consumer.commit.after", "commit.before"),
}


@dataclass(frozen=True)
class Injection:
    """What was done, to whom, and whether it was met: a trap may wait in vain."""

    nemesis: str
    target: str
    hit: bool
    injected: bool = True
    seconds: float = 0.0

    def __str__(self) -> str:
        outcome = "hit" if self.hit else "missed" if self.injected else "not possible now"
        return f"{self.seconds:5.1f} s  {self.nemesis}: {self.target}, {outcome}"


@dataclass
class Scene:
    """What nemeses work with."""

    stage: Stage
    rng: random.Random
    flow: Flow
    patients: list[Patient]
    longest_seconds: float = 2.0
    poisons: set[UUID] = field(default_factory=set)
    """What was planted, and every consumer has to park."""

    def service(self) -> str:
        return self.rng.choice(self.stage.books.services)

    def process(self) -> str:
        """Return a process that runs now: of a service, or the gateway."""
        running = RunState.read(self.stage.system.root)
        return self.rng.choice(
            [
                p.name
                for p in (running.processes if running else ())
                if p.kind in {"service", "gateway"} and p.pid is not None and p.state == "running"
            ]
        )

    def last(self) -> None:
        """Let a fault last for a while."""
        time.sleep(self.rng.uniform(0.2, self.longest_seconds))

    def wire(self, server: str) -> FaultProxy:
        return self.stage.wires[server]


Nemesis = Callable[[Scene], tuple[str, bool]]
NEMESES: dict[str, tuple[Nemesis, int]] = {}
"""By name: what it does, and how often it is drawn."""


def nemesis(name: str, weight: int = 4) -> Callable[[Nemesis], Nemesis]:
    def register(function: Nemesis) -> Nemesis:
        NEMESES[name] = function, weight
        return function

    return register


# -- processes


@nemesis("kill -9 a process", weight=16)
def kill_process(scene: Scene) -> tuple[str, bool]:
    name = scene.process()
    scene.stage.system.kill(name)
    return name, True


@nemesis("stop a process and let it go on", weight=8)
def stop_process(scene: Scene) -> tuple[str, bool]:
    name = scene.process()
    with stopped(scene.stage.system, name):
        scene.last()
    return name, True


@nemesis("ask a process to end", weight=6)
def restart_process(scene: Scene) -> tuple[str, bool]:
    name = scene.process()
    scene.stage.system.kill(name, signal.SIGTERM)
    return name, True


@nemesis("die at a crash point", weight=12)
def crash(scene: Scene) -> tuple[str, bool]:
    service = scene.rng.choice([service for service in CRASH_POINTS if service in scene.stage.books.services])
    label = scene.rng.choice(CRASH_POINTS[service])
    hit = scene.stage.system.arm(service, label)
    armed = hit.with_name(service)
    _wait(hit.exists)
    armed.unlink(missing_ok=True)
    return f"{service} {label}", hit.exists()


@nemesis("kill -9 the supervisor and start again", weight=RARE)
def kill_supervisor(scene: Scene) -> tuple[str, bool]:
    """Its fakes of vendors die with it, as vendors don't with their customers: nobody pays meanwhile."""
    system = scene.stage.system
    before = RunState.read(system.root)
    if before is None:
        raise LookupError("no supervisor runs")
    with scene.flow.pausing(PAYMENTS):
        _wait(scene.stage.till.nothing_to_notify, seconds=60)
        if not scene.stage.till.nothing_to_notify():
            raise LookupError("vendors still have something to tell")
        scene.stage.books.keep_registrations()
        os.kill(before.supervisor_pid, signal.SIGKILL)
        _wait(lambda: not is_running(system.root), seconds=30)
        undo(partial(_start_again, scene), within_seconds=START_SECONDS)
    return "supervisor", True


def _start_again(scene: Scene) -> None:
    started = scene.stage.system.clinic("up")
    if started.returncode != 0:
        raise ChildProcessError(started.stdout + started.stderr)


# -- servers


@nemesis("kill -9 the broker", weight=1)
def kill_broker(scene: Scene) -> tuple[str, bool]:
    return _with_server(scene, RABBITMQ, signal.SIGKILL)


@nemesis("stop the broker and let it go on", weight=2)
def stop_broker(scene: Scene) -> tuple[str, bool]:
    with stopped(scene.stage.system, RABBITMQ):
        scene.last()
    return RABBITMQ, True


@nemesis("kill -9 the database server", weight=1)
def kill_database(scene: Scene) -> tuple[str, bool]:
    return _with_server(scene, POSTGRES, signal.SIGKILL)


@nemesis("stop the database server immediately", weight=1)
def immediate_stop(scene: Scene) -> tuple[str, bool]:
    return _with_server(scene, POSTGRES, signal.SIGQUIT)


def _with_server(scene: Scene, server: str, number: signal.Signals) -> tuple[str, bool]:
    system = scene.stage.system
    pid = system.kill(server, number)
    system.wait_until_restarted(server, pid)
    # What is done to one that is still starting would meet nobody.
    undo(scene.stage.broker.overview if server == RABBITMQ else partial(ask_whether_it_answers, system))
    return server, True


@nemesis("end the sessions of a service", weight=20)
def terminate(scene: Scene) -> tuple[str, bool]:
    service = scene.service()
    return service, terminate_sessions(scene.stage.system, service) > 0


@nemesis("close a service's database")
def close_database(scene: Scene) -> tuple[str, bool]:
    service = scene.service()
    with database_closed(scene.stage.system, service) as ended:
        scene.last()
    return service, ended > 0


@nemesis("hold a table")
def hold_table(scene: Scene) -> tuple[str, bool]:
    service, table = scene.service(), scene.rng.choice(WORKED_ON)
    with table_locked(scene.stage.system, service, table) as is_waited_for:
        scene.last()
        hit = is_waited_for()
    return f"{service} {table}", hit


@nemesis("fill the disk of the database server", weight=1)
def fill_disk(scene: Scene) -> tuple[str, bool]:
    with disk_full(scene.stage.system) as is_noticed:
        scene.last()
        hit = is_noticed()
    return POSTGRES, hit


@nemesis("raise the broker's memory alarm", weight=1)
def memory_alarm(scene: Scene) -> tuple[str, bool]:
    with scene.stage.broker.memory_alarm():
        scene.last()
        raised = "memory" in " ".join(scene.stage.broker.alarms())
    return RABBITMQ, raised


@nemesis("raise the broker's disk alarm", weight=1)
def disk_alarm(scene: Scene) -> tuple[str, bool]:
    with scene.stage.broker.disk_alarm():
        scene.last()
        raised = "disk" in " ".join(scene.stage.broker.alarms())
    return RABBITMQ, raised


@nemesis("let the broker close all connections", weight=3)
def close_connections(scene: Scene) -> tuple[str, bool]:
    return RABBITMQ, scene.stage.broker.close_connections() > 0


@nemesis("delete a queue, declare it again and have its events resent", weight=1)
def delete_queue(scene: Scene) -> tuple[str, bool]:
    consumer, producer = scene.rng.choice((("patients", SCHEDULING), ("reporting", "billing")))
    with scene.stage.broker.queue_missing(f"{consumer}.{producer}"):
        scene.last()
    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(scene.stage.begun_at))
    types = [event.type for event in contracts.load().published_by(producer) if consumer in event.consumers]
    scene.stage.caller("admin").post(
        f"/v1/ops/replays/{consumer}", {"from_at": begun, "event_types": types, "keep_origin": True}
    )
    return f"{consumer}.{producer}", True


# -- links


@nemesis("reset a service's connections", weight=40)
def reset_some(scene: Scene) -> tuple[str, bool]:
    server, service = scene.rng.choice((POSTGRES, RABBITMQ)), scene.service()
    return f"{service} to {server}", scene.wire(server).cut(service) > 0


@nemesis("reset all connections", weight=6)
def reset_all(scene: Scene) -> tuple[str, bool]:
    server = scene.rng.choice((POSTGRES, RABBITMQ))
    return server, scene.wire(server).cut() > 0


@nemesis("refuse all connections", weight=3)
def refuse(scene: Scene) -> tuple[str, bool]:
    server = scene.rng.choice((POSTGRES, RABBITMQ))
    with scene.wire(server).refusing() as cut:
        scene.last()
    return server, cut > 0


@nemesis("black hole", weight=4)
def black_hole(scene: Scene) -> tuple[str, bool]:
    return _held(scene, BOTH)


@nemesis("half-open link", weight=6)
def half_open(scene: Scene) -> tuple[str, bool]:
    return _held(scene, frozenset({scene.rng.choice(list(Way))}))


def _held(scene: Scene, ways: frozenset[Way]) -> tuple[str, bool]:
    server, service = scene.rng.choice((POSTGRES, RABBITMQ)), scene.service()
    wire = scene.wire(server)
    with wire.holding(ways, service) as is_met:
        scene.last()
        hit = is_met()
    if scene.rng.random() < 0.5:
        wire.cut(service)
    return f"{service} to {server}", hit


@nemesis("slow links", weight=2)
def slow(scene: Scene) -> tuple[str, bool]:
    server = scene.rng.choice((POSTGRES, RABBITMQ))
    with scene.wire(server).slow(scene.rng.uniform(0.02, 0.2)) as is_met:
        scene.last()
        hit = is_met()
    return server, hit


@nemesis("cut between commit and answer", weight=15)
def cut_commit(scene: Scene) -> tuple[str, bool]:
    return _trapped(scene, POSTGRES, COMMITTED)


@nemesis("cut between publish and confirm", weight=15)
def cut_confirm(scene: Scene) -> tuple[str, bool]:
    return _trapped(scene, RABBITMQ, CONFIRMED)


@nemesis("cut between commit and acknowledgement", weight=15)
def cut_acknowledgement(scene: Scene) -> tuple[str, bool]:
    return _trapped(scene, RABBITMQ, ACKNOWLEDGED)


def _trapped(scene: Scene, server: str, where: Landmark) -> tuple[str, bool]:
    owner = scene.rng.choice((None, LAB, SCHEDULING, "patients", "billing"))
    with scene.wire(server).trap(where, owner) as trap:
        hit = trap.sprung.wait(TRAP_SECONDS)
    return owner or "anybody", hit


# -- messages


@nemesis("deliver events again, in another order", weight=10)
def redeliver(scene: Scene) -> tuple[str, bool]:
    patient = scene.rng.choice(scene.patients)
    producer = scene.rng.choice((SCHEDULING, LAB))
    sent = planting.published_about(scene.stage.books, producer, patient)[-10:]
    scene.rng.shuffle(sent)
    for envelope, body in sent:
        scene.stage.broker.publish(envelope.type, envelope.headers(), body)
    return producer, bool(sent)


@nemesis("publish what nobody can read", weight=2)
def publish_poison(scene: Scene) -> tuple[str, bool]:
    body = scene.rng.choice((b"\x00 not JSON", b"{}", b"[" * HEADS, b""))
    scene.poisons.add(planting.poison(scene.stage.broker, scene.stage.history, body))
    return planting.BOOKED, True


@nemesis("publish far too much", weight=1)
def publish_oversize(scene: Scene) -> tuple[str, bool]:
    body = b'{"data":"' + b"x" * planting.OVERSIZE_BYTES + b'"}'
    scene.poisons.add(planting.poison(scene.stage.broker, scene.stage.history, body))
    return planting.BOOKED, True


@nemesis("post far too much", weight=2)
def post_oversize(scene: Scene) -> tuple[str, bool]:
    answer = scene.stage.lab.post(b"MSH|^~\\&|" + b"x" * TOO_MANY_BYTES)
    return LAB, answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


def readers_of_poison(scene: Scene) -> set[str]:
    return set(contracts.load().event(planting.BOOKED).consumers) & set(scene.stage.books.services)


def _wait(condition: Callable[[], bool], *, seconds: float = TRAP_SECONDS) -> None:
    """Wait until it holds, or in vain."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
