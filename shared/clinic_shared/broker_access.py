"""What each process may do at the broker: as little as it needs, in RabbitMQ's regular expressions.

Only the step that declares the topology may make or change anything.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from clinic_shared.topology import AUDIT_EXCHANGE, UNROUTED, Topology, event_exchange

NOTHING = "^$"
EVERYTHING = ".*"
# RabbitMQ's name for the exchange without a name, which reaches any queue: buffers are written to through it.
_DEFAULT_EXCHANGE = "amq\\.default"
_SERVER_NAMED = "amq\\.gen.*"


@dataclass(frozen=True, kw_only=True)
class Access:
    """The permissions of one user in the virtual host.

    `topics` are the routing keys that it may publish with, by exchange; on others, with any. `management` lets a user read what it may use anyway, such as its exchange's bindings.
    """

    user: str
    configure: str = NOTHING
    write: str = NOTHING
    read: str = NOTHING
    tags: tuple[str, ...] = ()
    topics: tuple[tuple[str, str], ...] = ()


def accesses(services: Iterable[str]) -> Iterator[Access]:
    """Yield one user per installed service, the gateway's, that of `clinic topology declare`, and that of KEDA."""
    services = tuple(services)
    exchanges = {exchange.name for exchange in Topology.of(services).exchanges}
    of_services = [event_exchange(service) for service in services]
    of_all = sorted(exchanges - {*of_services, UNROUTED})
    for service in services:
        yield Access(
            user=service,
            write=_any_of(_DEFAULT_EXCHANGE, *map(_literal, [event_exchange(service), *of_all])),
            read=f"^{service}\\.",
            tags=("management",),
            topics=((event_exchange(service), f"^{service}\\."), (AUDIT_EXCHANGE, f"^{service}$")),
        )
    yield Access(
        user="gateway",
        configure=f"^{_SERVER_NAMED}$",
        write=f"^{_SERVER_NAMED}$",
        read=_any_of(_SERVER_NAMED, *map(_literal, of_services)),
    )
    yield Access(
        user="topology", configure=EVERYTHING, write=EVERYTHING, read=EVERYTHING, tags=("policymaker",)
    )
    yield Access(user="keda", tags=("monitoring",))


def _literal(name: str) -> str:
    return name.replace(".", "\\.")


def _any_of(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$"
