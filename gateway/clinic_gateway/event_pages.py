"""`/docs/events`: every event, who publishes and who keeps it, from the contracts. Opens without a network."""

from html import escape
from pathlib import Path
from typing import Any

from clinic_shared import contracts
from clinic_shared.contracts import Contracts, EventType

from clinic_gateway.reference import References, example, fields

INTRODUCTION = """
<h1>Polyclinic events</h1>
<p>Services tell each other what happened through RabbitMQ: routing key, type and contract have one name. The attributes
(id, time, subject, versions, key of order, origin) are CloudEvents headers; the body has <code>data</code> (ids, codes,
times, amounts) and <code>private</code> (personal and clinical fields, absent after an erasure). An event carries the
resulting state: who holds version 3 ignores versions 1 to 3.
<p><a href='/asyncapi.yaml'>asyncapi.yaml</a> <a href='/docs'>HTTP API</a>
"""


def events_body(folder: Path) -> str:
    """Return the page's body."""
    known = contracts.load(folder)
    producers = dict.fromkeys(event.producer for event in known.events.values())
    links = "".join(f"<a href='#{escape(name)}'>{escape(name)}</a>" for name in producers)
    return f"{INTRODUCTION}<nav>{links}</nav>" + "".join(_section(known, name) for name in producers)


def _section(known: Contracts, producer: str) -> str:
    events = "".join(_event(known, event) for event in known.published_by(producer))
    return f"<h2 id='{escape(producer)}'>{escape(producer)}</h2>{events}"


def _event(known: Contracts, event: EventType) -> str:
    schema = known.schema(event.type)
    kept = ", ".join(event.consumers) or "whoever listens right now"
    return (
        f"<details id='{escape(event.type)}'><summary><code>{escape(event.type)}</code> {escape(event.title)}</summary>"
        f"<p>{escape(str(schema.get('description', '')))}<p>Kept by: {escape(kept)}"
        f"{_part('data', schema)}{_part('private', schema)}{example(schema['examples'][0])}</details>"
    )


def _part(name: str, schema: dict[str, Any]) -> str:
    references = References(schema)
    part = references.resolve(schema["properties"].get(name, {}))
    alternatives = [one for one in part.get("anyOf", [part]) if references.resolve(one).get("type") != "null"]
    table = "".join(fields(one, references) for one in alternatives)
    return f"<h3><code>{name}</code></h3>{table}" if table else ""
