"""Everything that can be done to a running system, by name; a seed decides what is done when, and to whom.

A nemesis undoes what it did before it returns, so that each of them finds whatever the ones before it left
of a system that is getting over them. It tells whom it struck, and whether the fault was really met.
"""

import os
import signal
import time
from functools import partial

import httpx
from clinic_local.state import RunState, is_running
from clinic_shared import contracts
from clinic_shared.envelope import Envelope

from . import planting
from .clocks import JUMPS_SECONDS, NOTICED_SECONDS, wrong_clock
from .harm import stopped
from .history import Resent
from .proxy import BOTH, Way
from .scene import LAB, POSTGRES, RABBITMQ, RARE, SCHEDULING, Scene, nemesis, wait_until
from .server_harm import (
    ask_whether_it_answers,
    database_closed,
    disk_full,
    table_locked,
    terminate_sessions,
    worked_on,
)
from .traffic import WITH_VENDORS
from .waiting import undo

HEADS = 16_000
TOO_MANY_BYTES = 11_000_000
START_SECONDS = 600
FULL_SECONDS = 10.0


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


@nemesis("let a clock jump", weight=8)
def jump(scene: Scene) -> tuple[str, bool]:
    if not scene.stage.clocks_jump:
        raise LookupError("there is no libfaketime")
    service, seconds = scene.service(), scene.rng.choice(JUMPS_SECONDS)
    with wrong_clock(scene.stage.system, service, seconds) as is_wrong:
        hit = wait_until(is_wrong, seconds=NOTICED_SECONDS)
        scene.last()
    return f"{service} by {seconds:+d} s", hit


@nemesis("kill -9 the supervisor and start again", weight=RARE)
def kill_supervisor(scene: Scene) -> tuple[str, bool]:
    """Its fakes of vendors die with it, as vendors don't with their customers: nobody pays or orders meanwhile."""
    system = scene.stage.system
    before = RunState.read(system.root)
    if before is None:
        raise LookupError("no supervisor runs")
    with scene.flow.pausing(WITH_VENDORS):
        if not wait_until(partial(_nothing_is_open, scene), seconds=60):
            raise LookupError("vendors still have something to tell")
        scene.stage.books.keep_what_vendors_know()
        scene.stage.till.forget_paid()
        os.kill(before.supervisor_pid, signal.SIGKILL)
        wait_until(lambda: not is_running(system.root), seconds=30)
        undo(partial(_start_again, scene), within_seconds=START_SECONDS)
    return "supervisor", True


def _nothing_is_open(scene: Scene) -> bool:
    """Tell whether payments, receipts and orders are settled: nobody has to ask a vendor what it will have forgotten."""
    books = scene.stage.books
    open_ones = books.query(
        "billing",
        "SELECT 1 FROM payment WHERE status = 'pending' UNION ALL SELECT 1 FROM receipt WHERE status <> 'done' LIMIT 1",
    )
    return scene.stage.till.nothing_to_notify() and not open_ones and not books.owed_outside()


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
    service = scene.connected(POSTGRES)
    return service, terminate_sessions(scene.stage.system, service) > 0


@nemesis("close a service's database")
def close_database(scene: Scene) -> tuple[str, bool]:
    service = scene.connected(POSTGRES)
    with database_closed(scene.stage.system, service) as ended:
        scene.last()
    return service, ended > 0


@nemesis("hold a table")
def hold_table(scene: Scene) -> tuple[str, bool]:
    service = scene.service()
    table = scene.rng.choice(worked_on(service))
    with table_locked(scene.stage.system, service, table) as is_waited_for:
        hit = scene.last(is_waited_for)
    return f"{service} {table}", hit


@nemesis("fill the disk of the database server", weight=1)
def fill_disk(scene: Scene) -> tuple[str, bool]:
    with disk_full(scene.stage.system) as is_noticed:
        hit = wait_until(is_noticed, seconds=FULL_SECONDS)
    return POSTGRES, hit


@nemesis("raise the broker's memory alarm", weight=1)
def memory_alarm(scene: Scene) -> tuple[str, bool]:
    with scene.stage.broker.memory_alarm():
        raised = scene.last(lambda: "memory" in " ".join(scene.stage.broker.alarms()))
    return RABBITMQ, raised


@nemesis("raise the broker's disk alarm", weight=1)
def disk_alarm(scene: Scene) -> tuple[str, bool]:
    with scene.stage.broker.disk_alarm():
        raised = scene.last(lambda: "disk" in " ".join(scene.stage.broker.alarms()))
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
    request = {"from_at": begun, "event_types": types, "keep_origin": True}
    undo(lambda: scene.stage.caller("admin").post(f"/v1/ops/replays/{consumer}", request))
    scene.stage.history.resent.append(Resent(consumer, producer, at=time.time()))
    return f"{consumer}.{producer}", True


# -- links


@nemesis("reset a service's connections", weight=40)
def reset_some(scene: Scene) -> tuple[str, bool]:
    server = scene.rng.choice((POSTGRES, RABBITMQ))
    service = scene.connected(server)
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
    server = scene.rng.choice((POSTGRES, RABBITMQ))
    service = scene.connected(server)
    wire = scene.wire(server)
    with wire.holding(ways, service) as is_met:
        hit = scene.last(is_met)
    if scene.rng.random() < 0.5:
        wire.cut(service)
    return f"{service} to {server}", hit


@nemesis("slow links", weight=2)
def slow(scene: Scene) -> tuple[str, bool]:
    server = scene.rng.choice((POSTGRES, RABBITMQ))
    with scene.wire(server).slow(scene.rng.uniform(0.02, 0.2)) as is_met:
        hit = scene.last(is_met)
    return server, hit


# -- messages


@nemesis("deliver events again, in another order", weight=10)
def redeliver(scene: Scene) -> tuple[str, bool]:
    patient = scene.rng.choice(scene.patients)
    producer = scene.rng.choice((SCHEDULING, LAB))
    sent: list[tuple[Envelope, bytes]] = []
    # What was done before may just have cost the connection over which this is asked.
    undo(lambda: sent.extend(planting.delivered_about(scene.stage.books, producer, patient)[-10:]))
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
