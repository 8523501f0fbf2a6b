"""How far behind the consumers of this process are: the deliveries that they hold, by when their events were recorded.

A queue keeps its order, so nothing that still waits at the broker is older than the oldest delivery in hand.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from aiormq.abc import DeliveredMessage

from clinic_shared.envelope import PREFIX

if TYPE_CHECKING:
    from clinic_shared.service import Runtime

_RECORDED = PREFIX + "recordedtime"


@dataclass
class InHand:
    """The deliveries of one queue that aren't acknowledged yet. Headers are only read when somebody asks."""

    _recorded: dict[object, Any] = field(default_factory=dict)

    def take(self, delivery: DeliveredMessage) -> None:
        self._recorded[id(delivery)] = (delivery.header.properties.headers or {}).get(_RECORDED)

    def settle(self, delivery: DeliveredMessage) -> None:
        self._recorded.pop(id(delivery), None)

    def clear(self) -> None:
        self._recorded.clear()

    @property
    def is_empty(self) -> bool:
        return not self._recorded

    @property
    def oldest_at(self) -> datetime | None:
        """When the oldest event in hand was recorded; None when none is, or none that can be read."""
        for recorded in tuple(self._recorded.values()):
            try:
                moment = datetime.fromisoformat(recorded)
            except (TypeError, ValueError):
                continue
            if moment.tzinfo is not None:
                return moment
        return None


@dataclass
class Progress:
    """What the consumers of this process have in hand, by queue."""

    queues: dict[str, InHand] = field(default_factory=dict)

    @classmethod
    def of(cls, runtime: "Runtime") -> "Progress":
        progress = runtime.resources.get(cls)
        if progress is None:
            progress = cls()
            runtime.provide(progress)
        return cast("Progress", progress)

    def queue(self, name: str) -> InHand:
        return self.queues.setdefault(name, InHand())
