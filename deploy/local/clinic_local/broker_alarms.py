"""Why RabbitMQ takes no messages: it raises an alarm when its disk or memory runs low, and blocks who publishes."""

import json
from dataclasses import dataclass
from typing import Any

from clinic_local import loopback
from clinic_local.machine import megabytes

_SECONDS = 3.0
_NOTHING_IS_LOST = (
    "Nothing is lost meanwhile: outboxes keep the events, and they go out when the alarm has ended."
)
# resource (some versions call the first "disk space") -> where its figures stand in the description of a node, the words between them, what to do
_RESOURCES = {
    "disk": (
        "disk_free",
        "disk_free_limit",
        "free, below its limit of",
        "Free some space on the disk of its data.",
    ),
    "memory": (
        "mem_used",
        "mem_limit",
        "used, above its limit of",
        "Let consumers catch up (make status shows what is queued), or restart it.",
    ),
}


@dataclass(frozen=True)
class Alarm:
    what: str
    advice: str


def broker_alarms(management_url: str) -> list[Alarm]:
    """Return the alarms that stand at any node; none when the broker doesn't answer."""
    base = management_url.rstrip("/")
    try:
        _, body = loopback.get(f"{base}/api/health/checks/alarms", timeout_seconds=_SECONDS)
        standing = json.loads(body).get("alarms", [])
        nodes = loopback.get_json(f"{base}/api/nodes", timeout_seconds=_SECONDS) if standing else []
    except (OSError, ValueError):
        return []
    by_name = {node["name"]: node for node in nodes}
    return [_alarm(alarm["resource"], by_name.get(alarm["node"], {})) for alarm in standing]


def _alarm(resource: str, node: dict[str, Any]) -> Alarm:
    kind = resource.split(maxsplit=1)[0]
    if kind not in _RESOURCES:
        return Alarm(f"it takes no messages: {resource} alarm", _NOTHING_IS_LOST)
    value, limit, words, advice = _RESOURCES[kind]
    figures = ""
    if isinstance(node.get(value), int) and isinstance(node.get(limit), int):
        figures = f" ({megabytes(node[value])} {words} {megabytes(node[limit])})"
    return Alarm(f"it takes no messages: {kind} alarm{figures}", f"{advice}\n{_NOTHING_IS_LOST}")
