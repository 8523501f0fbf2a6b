"""What must exist at the broker, derived from the contracts: exchanges, queues, bindings, policies.

Declared for all installed services by one step before anything publishes: a queue that is missing
loses events silently, as the broker confirms them for the others. Queue type and single active
consumer are arguments; everything else is policy, so that an operator can change it.
"""

import asyncio
import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aio_pika.abc import AbstractChannel

from clinic_shared import contracts
from clinic_shared.broker import BrokerUnavailableError, Connection, EntityMissingError, broker_errors
from clinic_shared.management import Management, vhost_of

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

UNROUTED = "unrouted"
AUDIT_EXCHANGE = "audit.records"
AUDIT_QUEUE = "audit.records.in"

DELIVERY_LIMIT = 20
NO_DELIVERY_LIMIT = 1_000_000
"""RabbitMQ 4 drops a message after 20 deliveries unless told otherwise, and 3.10 refuses `-1`."""
UNROUTED_KEPT_MS = 7 * 24 * 3600 * 1000
RPC_SECONDS = 10
SETTLE_SECONDS = 10
DECLARING_CHANNELS = 4


def event_exchange(producer: str) -> str:
    return f"{producer}.events"


def exchange_of(event_type: str) -> str:
    """Return where events of a type are published."""
    return event_exchange(event_type.partition(".")[0])


def event_queue(consumer: str, producer: str) -> str:
    return f"{consumer}.{producer}"


def parking_queue(service: str) -> str:
    """Where the broker puts what kept killing its consumer."""
    return f"{service}.parking"


def intake_queue(service: str) -> str:
    """The buffer for accepted input while the service's database is down."""
    return f"{service}.intake"


def replay_queue(service: str) -> str:
    """Where the owners' logs come in while the service's read model is rebuilt."""
    return f"{service}.replay"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    name: str
    type: str = "topic"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A durable quorum queue and what is routed to it, as (exchange, routing key)."""

    name: str
    single_active_consumer: bool = False
    bindings: tuple[tuple[str, str], ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        single = {"x-single-active-consumer": True} if self.single_active_consumer else {}
        return {"x-queue-type": "quorum", **single}


@dataclass(frozen=True, kw_only=True)
class Policy:
    name: str
    pattern: str
    apply_to: str
    definition: Mapping[str, Any]
    names: tuple[str, ...] = field(default=(), compare=False)
    """The entities it is meant for; the pattern is made of them."""

    def document(self) -> dict[str, Any]:
        return {
            "pattern": self.pattern,
            "apply-to": self.apply_to,
            "definition": dict(self.definition),
            "priority": 10,
        }


@dataclass(frozen=True, kw_only=True)
class Topology:
    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    policies: tuple[Policy, ...]

    @classmethod
    def of(cls, installed: Iterable[str] = (), *, known: contracts.Contracts | None = None) -> "Topology":
        """Derive the topology of the installed services; none given means all."""
        known = known or contracts.load()
        services = tuple(installed) or tuple(known.services)
        per_consumer = {service: _queues_of_consumer(known, service, services) for service in services}
        exchanges = (
            Exchange(name=UNROUTED, type="fanout"),
            Exchange(name=AUDIT_EXCHANGE),
            *(Exchange(name=event_exchange(producer)) for producer in (*services, contracts.PLATFORM)),
        )
        buffers = (
            *(Queue(name=parking_queue(service)) for service in services),
            *(Queue(name=intake_queue(service)) for service in services),
            *(
                Queue(name=replay_queue(service), single_active_consumer=True)
                for service in services
                if known.services[service].rebuilds
            ),
            Queue(name=AUDIT_QUEUE, single_active_consumer=True, bindings=((AUDIT_EXCHANGE, "#"),)),
        )
        unrouted = Queue(name=UNROUTED, bindings=((UNROUTED, "#"),))
        events = tuple(queue for queues in per_consumer.values() for queue in queues)
        return cls(
            exchanges=exchanges,
            queues=(*events, *buffers, unrouted),
            policies=_policies(per_consumer, buffers, exchanges),
        )

    def queues_behind(self, exchange: str, types: Collection[str] | None = None) -> tuple[str, ...]:
        """Return the queues that must have been there while something (of these types) was published."""
        return tuple(
            queue.name
            for queue in self.queues
            if any(name == exchange and (types is None or key in types) for name, key in queue.bindings)
        )

    def bindings_of(self, exchange: str) -> set[tuple[str, str]]:
        """Return (queue, routing key) pairs."""
        return {
            (queue.name, key) for queue in self.queues for name, key in queue.bindings if name == exchange
        }

    def definitions(self, vhost: str) -> dict[str, Any]:
        """Return a definitions document for `rabbitmqctl import_definitions`."""
        return {
            "exchanges": [
                {
                    "name": e.name,
                    "vhost": vhost,
                    "type": e.type,
                    **_DURABLE,
                    "internal": False,
                    "arguments": {},
                }
                for e in self.exchanges
            ],
            "queues": [
                {"name": q.name, "vhost": vhost, **_DURABLE, "arguments": q.arguments} for q in self.queues
            ],
            "bindings": [
                {
                    "source": exchange,
                    "vhost": vhost,
                    "destination": queue.name,
                    "destination_type": "queue",
                    "routing_key": key,
                    "arguments": {},
                }
                for queue in self.queues
                for exchange, key in queue.bindings
            ],
            "policies": [{"vhost": vhost, "name": p.name, **p.document()} for p in self.policies],
        }


_DURABLE = {"durable": True, "auto_delete": False}


def _queues_of_consumer(
    known: contracts.Contracts, consumer: str, installed: Sequence[str]
) -> tuple[Queue, ...]:
    """One queue per producer, whatever the event type: order across types is kept."""
    platform = Queue(
        name=event_queue(consumer, contracts.PLATFORM),
        single_active_consumer=True,
        bindings=tuple((event_exchange(contracts.PLATFORM), event_type) for event_type in known.platform),
    )
    return platform, *(
        Queue(
            name=event_queue(consumer, producer),
            single_active_consumer=True,
            bindings=tuple(
                (event_exchange(producer), event.type)
                for event in known.consumed_by(consumer)
                if event.producer == producer
            ),
        )
        for producer in known.producers_of(consumer)
        if producer in installed
    )


def _policies(
    per_consumer: Mapping[str, Sequence[Queue]], buffers: Sequence[Queue], exchanges: Sequence[Exchange]
) -> tuple[Policy, ...]:
    """One policy holds per entity, so each must be complete."""
    consumers = (
        _policy(
            f"clinic-{consumer}",
            "queues",
            [queue.name for queue in queues],
            {
                "delivery-limit": DELIVERY_LIMIT,
                "dead-letter-exchange": "",
                "dead-letter-routing-key": parking_queue(consumer),
                # At least once needs reject-publish: anything else falls back to at most once.
                "dead-letter-strategy": "at-least-once",
                "overflow": "reject-publish",
            },
        )
        for consumer, queues in per_consumer.items()
        if queues
    )
    keep = {"delivery-limit": NO_DELIVERY_LIMIT, "overflow": "reject-publish"}
    # Copies for diagnosis: the event log keeps the originals.
    diagnosis = {"message-ttl": UNROUTED_KEPT_MS, "max-length": 100_000, "overflow": "drop-head"}
    catching = [exchange.name for exchange in exchanges if exchange.name != UNROUTED]
    return (
        *consumers,
        _policy("clinic-buffers", "queues", [queue.name for queue in buffers], keep),
        _policy("clinic-unrouted", "queues", [UNROUTED], diagnosis),
        _policy("clinic-exchanges", "exchanges", catching, {"alternate-exchange": UNROUTED}),
    )


def _policy(name: str, apply_to: str, names: Sequence[str], definition: Mapping[str, Any]) -> Policy:
    # Not re.escape: it escapes hyphens too, and the pattern is read by people.
    pattern = "^(" + "|".join(entity.replace(".", "\\.") for entity in names) + ")$"
    return Policy(name=name, pattern=pattern, apply_to=apply_to, definition=definition, names=tuple(names))


class TopologyError(Exception):
    """The broker has something of ours in another shape, or refuses a declaration."""


async def declare_all(
    amqp_url: str, management_url: str | None, installed_services: Iterable[str] = ()
) -> Topology:
    """Declare everything for the installed services. Safe to repeat. Raises TopologyError.

    Without a management API the policies are left to the operator (`print_text`).
    """
    topology = Topology.of(installed_services)
    if management_url is not None:
        # First, so that no queue ever lives without its policy.
        async with Management(management_url, amqp_url) as management:
            await management.put_policies(topology.policies)
    connection = Connection(amqp_url, name="clinic topology")
    try:
        await _declare(connection, topology)
    finally:
        await connection.close()
    return topology


async def _declare(connection: Connection, topology: Topology) -> None:
    channel = await connection.channel()
    for exchange in topology.exchanges:
        await _declare_one(
            exchange.name, channel.declare_exchange(exchange.name, exchange.type, durable=True)
        )
    channels = [await connection.channel() for _ in range(DECLARING_CHANNELS)]
    shares = [topology.queues[n::DECLARING_CHANNELS] for n in range(DECLARING_CHANNELS)]
    async with asyncio.TaskGroup() as group:
        for own_channel, share in zip(channels, shares, strict=True):
            group.create_task(_declare_queues(own_channel, share))


async def _declare_queues(channel: AbstractChannel, queues: Iterable[Queue]) -> None:
    for queue in queues:
        declaration = channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
        declared = await _declare_one(queue.name, declaration)
        for exchange, key in queue.bindings:
            await _declare_one(queue.name, declared.bind(exchange, key))


async def _declare_one(name: str, declaration: Any) -> Any:
    try:
        with broker_errors():
            return await declaration
    except EntityMissingError as error:
        raise TopologyError(f"{name} exists with other arguments: {error.__cause__}") from error
    except BrokerUnavailableError as error:
        raise TopologyError(f"{name} could not be declared: {error.__cause__}") from error


async def verify_all(
    amqp_url: str,
    management_url: str | None,
    installed_services: Iterable[str] = (),
    *,
    settle_seconds: float = SETTLE_SECONDS,
) -> list[str]:
    """Read the effective topology back and return what differs, in words; empty when all is well.

    A management API may show what is new only after a few seconds, so a difference counts when it
    stays. Without a management API only existence can be checked.
    """
    topology = Topology.of(installed_services)
    deadline = time.monotonic() + settle_seconds
    while True:
        found = await _differences(topology, amqp_url, management_url)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)


async def _differences(topology: Topology, amqp_url: str, management_url: str | None) -> list[str]:
    if management_url is None:
        connection = Connection(amqp_url, name="clinic topology")
        try:
            missing = await QueueProbe(connection).missing(queue.name for queue in topology.queues)
        finally:
            await connection.close()
        return [f"queue {name} is missing" for name in missing]
    async with Management(management_url, amqp_url) as management:
        exchanges, queues, bindings, policies = await asyncio.gather(
            *(management.list(kind) for kind in ("exchanges", "queues", "bindings", "policies"))
        )
    return [
        *_exchange_mismatches(topology, {row["name"]: row for row in exchanges}),
        *_queue_mismatches(topology, {row["name"]: row for row in queues}),
        *_binding_mismatches(topology, bindings),
        *_policy_mismatches(topology, policies, exchanges, queues),
    ]


class QueueProbe:
    """Asks the broker whether queues exist, on a channel that may die of the answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: AbstractChannel | None = None

    async def missing(self, names: Iterable[str]) -> list[str]:
        """Return which of these queues don't exist. Raises BrokerUnavailableError."""
        return [name for name in names if not await self._exists(name)]

    async def _exists(self, name: str) -> bool:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel()
        channel = self._channel
        try:
            with broker_errors():
                await channel.declare_queue(name, passive=True, timeout=RPC_SECONDS)
        except EntityMissingError:
            self._channel = None  # the broker closes a channel that asks for what doesn't exist
            return False
        except BrokerUnavailableError:
            self._channel = None
            self._connection.discard(channel)
            raise
        return True


def _exchange_mismatches(topology: Topology, actual: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for exchange in topology.exchanges:
        row = actual.get(exchange.name)
        if row is None:
            found.append(f"exchange {exchange.name} is missing")
        elif row["type"] != exchange.type or not row["durable"]:
            found.append(f"exchange {exchange.name} is not a durable {exchange.type} exchange")
    return found


def _queue_mismatches(topology: Topology, actual: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for queue in topology.queues:
        row = actual.get(queue.name)
        if row is None:
            found.append(f"queue {queue.name} is missing")
        elif not row["durable"] or not row["arguments"].items() >= queue.arguments.items():
            found.append(f"queue {queue.name} has other arguments")
    return found


def _binding_mismatches(topology: Topology, actual: Iterable[Mapping[str, Any]]) -> list[str]:
    there = {(row["source"], row["destination"], row["routing_key"]) for row in actual}
    return [
        f"queue {queue.name} is not bound to {exchange} with {key}"
        for queue in topology.queues
        for exchange, key in queue.bindings
        if (exchange, queue.name, key) not in there
    ]


def _policy_mismatches(
    topology: Topology,
    policies: Iterable[Mapping[str, Any]],
    exchanges: Iterable[Mapping[str, Any]],
    queues: Iterable[Mapping[str, Any]],
) -> list[str]:
    """Compare what is in effect, wherever it comes from: an operator's own policy may do the same."""
    definitions = {row["name"]: row["definition"] for row in policies}
    effective = {
        "exchanges": {row["name"]: definitions.get(row.get("policy"), {}) for row in exchanges},
        "queues": {row["name"]: definitions.get(row.get("policy"), {}) for row in queues},
    }
    return [
        f"{policy.apply_to.removesuffix('s')} {name} lacks {key}={value!r} by policy"
        for policy in topology.policies
        for name in policy.names
        if name in effective[policy.apply_to]
        for key, value in policy.definition.items()
        if effective[policy.apply_to][name].get(key) != value
    ]


def print_text(amqp_url: str, installed_services: Iterable[str] = ()) -> str:
    """Return what an operator must import where neither policies nor declarations are open to us."""
    definitions = Topology.of(installed_services).definitions(vhost_of(amqp_url))
    return json.dumps(definitions, indent=2, ensure_ascii=False)


def installed(runtime: "Runtime") -> tuple[str, ...]:
    """Return the services that this deployment runs; empty means all."""
    return tuple(name for name in runtime.settings.subscribed_services.split(",") if name)


def queues_of(runtime: "Runtime") -> tuple[str, ...]:
    """Return the queues that a service consumes events from."""
    known = contracts.load()
    present = installed(runtime) or tuple(known.services)
    name = runtime.service.name
    producers = (contracts.PLATFORM, *(p for p in known.producers_of(name) if p in present))
    return tuple(event_queue(name, producer) for producer in producers)
