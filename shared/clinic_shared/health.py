"""What keeps this process's loops from their work right now, in words fit for `/readyz`."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from clinic_shared.service import Runtime


@dataclass
class Health:
    """Reasons by loop; a loop that works has none. Reasons name queues and components, never data."""

    reasons: dict[str, str] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the process is told to end: it isn't ready any more, and long answers come to their end."""

    @classmethod
    def of(cls, runtime: "Runtime") -> "Health":
        health = runtime.resources.get(cls)
        if health is None:
            health = cls()
            runtime.provide(health)
        return cast("Health", health)

    def report(self, loop: str, reason: str | None) -> None:
        """Set or, with None, clear the reason of one loop."""
        if reason is None:
            self.reasons.pop(loop, None)
        else:
            self.reasons[loop] = reason
