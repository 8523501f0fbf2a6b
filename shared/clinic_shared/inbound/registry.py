"""The interfaces of one service that take something in: how each is counted, and how it is processed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from clinic_shared.database import Transaction
from clinic_shared.inbound.accounts import Interface
from clinic_shared.intake_store import Item

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

Process = Callable[[Transaction, Item], Awaitable[None]]


@dataclass
class Inbound:
    """Filled at start-up."""

    interfaces: dict[str, Interface] = field(default_factory=dict)
    processing: dict[str, Process] = field(default_factory=dict)

    @classmethod
    def of(cls, runtime: "Runtime") -> "Inbound":
        inbound = runtime.resources.get(cls)
        if inbound is None:
            inbound = cls()
            runtime.provide(inbound)
        return cast("Inbound", inbound)

    def receives(self, name: str, interface: Interface, process: Process) -> None:
        self.interfaces[name] = interface
        self.processing[name] = process
