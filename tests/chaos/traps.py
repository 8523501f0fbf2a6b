"""Faults that wait for somebody to pass by: crash points, and the moments between two steps on a wire."""

from functools import partial

from .provoking import PROVOKED
from .proxy import ACKNOWLEDGED, COMMITTED, CONFIRMED, Landmark
from .scene import LAB, POSTGRES, RABBITMQ, SCHEDULING, Scene, Trap, nemesis

CRASH = "die at a crash point"
TRAP_SECONDS = 120.0
"""So long a trap waits."""
_COMMIT = ("commit.before", "commit.after")
_RELAY = ("relay.publish.before", "relay.publish.after", "relay.confirm.after", "relay.mark.after")
_DELIVERY = ("consumer.deliver", "consumer.commit.after", "consumer.ack.after")
_CONSUMER = (*_DELIVERY, "consumer.effect.before")
_INTAKE = (
    *("intake.accept.before", "intake.durable.after", "intake.drain.after"),
    *("intake.process.before", "intake.process.commit"),
)
_REDRIVE = ("redrive.item.before", "redrive.commit.before", "redrive.commit.after")
_REBUILD = (
    *("rebuild.batch.before", "rebuild.batch.after", "rebuild.swap.before", "rebuild.swap.locked"),
    *("rebuild.swap.exchanged", "rebuild.swap.after"),
)
_ARCHIVE = ("archive.written", "archive.placed", "archive.recorded", "archive.removed")
_REPLAY = ("replay.batch.sent",)
CRASH_POINTS = {
    LAB: (*_INTAKE, *_CONSUMER, *_COMMIT, *_RELAY, *_REPLAY, "lab.order.sent"),
    "patients": (*_CONSUMER, *_COMMIT, *_RELAY, *_REDRIVE),
    SCHEDULING: (*_COMMIT, *_RELAY, *_REPLAY, "partitions.carried"),
    "billing": (
        *(*_INTAKE, *_REPLAY, *_CONSUMER, *_COMMIT, *_RELAY, "provider.call.after", "provider.reread.after"),
        *("receipt.lease.after", "receipt.describe.after", "receipt.register.after", "receipt.report.after"),
        "receipt.save.after",
    ),
    "notifications": (*_CONSUMER, *_COMMIT, *_RELAY, "message.call.after"),
    "referrals": (*_CONSUMER, "partitions.moved", "partitions.detached"),
    "reporting": (*_CONSUMER, *_COMMIT, *_REBUILD),
    "audit": (*_DELIVERY, *_COMMIT, *_ARCHIVE),
}
"""The labelled steps that this traffic passes, or is made to pass (`provoking.py`)."""


@nemesis(CRASH, weight=16)
def crash(scene: Scene) -> Trap:
    """One point per service at a time, which is what a service can be told: one of those that were tried least."""
    services = [s for s in CRASH_POINTS if s in scene.stage.books.services and s not in scene.traps]
    if not services:
        raise LookupError("every service has a crash point to die at")
    points = [(service, label) for service in services for label in CRASH_POINTS[service]]
    least = min(scene.tried[point] for point in points)
    service, label = scene.rng.choice([point for point in points if scene.tried[point] == least])
    scene.tried[service, label] += 1
    hit = scene.stage.system.arm(service, label)
    disarm = partial(hit.with_name(service).unlink, missing_ok=True)
    try:
        if label in PROVOKED:
            PROVOKED[label](scene, service)
    except BaseException:
        disarm()
        scene.tried[service, label] -= 1
        raise
    return Trap(service, f"{service} {label}", hit.exists, disarm)


@nemesis("cut between commit and answer", weight=15)
def cut_commit(scene: Scene) -> Trap:
    return _lay(scene, POSTGRES, COMMITTED)


@nemesis("cut between publish and confirm", weight=15)
def cut_confirm(scene: Scene) -> Trap:
    return _lay(scene, RABBITMQ, CONFIRMED)


@nemesis("cut between commit and acknowledgement", weight=15)
def cut_acknowledgement(scene: Scene) -> Trap:
    return _lay(scene, RABBITMQ, ACKNOWLEDGED)


def _lay(scene: Scene, server: str, where: Landmark) -> Trap:
    owners: list[str | None] = [None, LAB, "patients", "billing", "notifications"]
    owners += ["reporting", "audit"] if where is ACKNOWLEDGED else [SCHEDULING]
    free = [owner for owner in owners if (where, owner) not in scene.traps]
    if not free:
        raise LookupError("there is a trap for everybody")
    owner = scene.rng.choice(free)
    wire = scene.wire(server)
    trap = wire.lay_trap(where, owner)
    return Trap((where, owner), owner or "anybody", trap.sprung.is_set, partial(wire.take_away, trap))
