"""The interfaces of one service that take something in: how each is counted, and how it is processed."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from sqlalchemy import Row

from clinic_shared.database import Transaction
from clinic_shared.inbound import accounts
from clinic_shared.inbound.accounts import Interface
from clinic_shared.intake_store import Item
from clinic_shared.ledger import Ledger

if TYPE_CHECKING:
    from clinic_shared.service import Runtime


@runtime_checkable
class Prepares(Protocol):
    """A way of processing that asks the database at once what it needs to know of several items."""

    async def prepare(self, tx: Transaction, items: Sequence[Item]) -> None: ...

    async def __call__(self, tx: Transaction, item: Item) -> None: ...


@runtime_checkable
class Repeats(Prepares, Protocol):
    """A way of processing that can take up again what it has worked off before, as it would be understood now."""

    async def again(self, tx: Transaction, item: Item) -> None: ...


Process = Callable[[Transaction, Item], Awaitable[None]] | Prepares


async def work_off(process: Process, tx: Transaction, row: Row[Any], item: Item) -> None:
    """Process an item, or take it up again: one that was processed before has the instant of that."""
    if row.processed_at is not None and isinstance(process, Repeats):
        await process.again(tx, item)
    else:
        await process(tx, item)


@dataclass
class Inbound:
    """Filled at start-up."""

    interfaces: dict[str, Interface] = field(default_factory=dict)
    processing: dict[str, Process] = field(default_factory=dict)

    @property
    def repeatable(self) -> frozenset[str]:
        """The interfaces whose items can be taken up again when they have been processed."""
        return frozenset(name for name, process in self.processing.items() if isinstance(process, Repeats))

    @classmethod
    def of(cls, runtime: "Runtime") -> "Inbound":
        inbound = runtime.resources.get(cls)
        if inbound is None:
            inbound = cls()
            runtime.provide(inbound)
        return cast("Inbound", inbound)


def receives(runtime: "Runtime", name: str, interface: Interface, process: Process) -> None:
    """Let a service take something in over an interface: counted at `/v1/ops/ledger`, seen at `/v1/ops/messages`."""
    inbound = Inbound.of(runtime)
    inbound.interfaces[name] = interface
    inbound.processing[name] = process
    Ledger.of(runtime).interfaces[name] = partial(accounts.total, name=name, interface=interface)
