"""Why RabbitMQ takes no messages: it raises an alarm when its disk or memory runs low, and blocks who publishes."""

from dataclasses import dataclass
from typing import Any

from clinic_local import loopback
from clinic_local.machine import megabytes

_NOTHING_IS_LOST = (
    "Nothing is lost meanwhile: outboxes keep the events, and they go out when the alarm has ended."
)


@dataclass(frozen=True)
class Alarm:
    what: str
    advice: str


def broker_alarms(management_url: str) -> list[Alarm]:
    """Return the alarms that stand at any node; none when the broker doesn't answer."""
    try:
        nodes = loopback.get_json(f"{management_url.rstrip('/')}/api/nodes", timeout_seconds=3)
    except (OSError, ValueError):
        return []
    return [alarm for node in nodes for alarm in _of_node(node)]


def _of_node(node: dict[str, Any]) -> list[Alarm]:
    found = []
    if node.get("disk_free_alarm"):
        figures = _figures(node, "disk_free", "disk_free_limit", "free, below its limit of")
        found.append(
            Alarm(
                f"it takes no messages: disk alarm{figures}",
                f"Free some space on the disk of its data.\n{_NOTHING_IS_LOST}",
            )
        )
    if node.get("mem_alarm"):
        figures = _figures(node, "mem_used", "mem_limit", "used, above its limit of")
        found.append(
            Alarm(
                f"it takes no messages: memory alarm{figures}",
                f"Let consumers catch up (make status shows what is queued), or restart it.\n{_NOTHING_IS_LOST}",
            )
        )
    return found


def _figures(node: dict[str, Any], value: str, limit: str, words: str) -> str:
    if not isinstance(node.get(value), int) or not isinstance(node.get(limit), int):
        return ""
    return f" ({megabytes(node[value])} {words} {megabytes(node[limit])})"
