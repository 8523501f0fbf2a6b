"""What is handed out: a FHIR R4 Bundle of type collection, and the same to be read by people. Pure."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import orjson
from clinic_shared.exporting import LEFT_OUT, Json, Part, reference

from clinic_patients.exports.exporting import Taken

EXPORTS = "urn:polyclinic:patient-export"
MANIFEST = "manifest"
MOST_LINES = 20_000
"""Of the document for people; beyond that it refers to the Bundle. A page holds about fifty."""


def manifest(taken: Taken) -> dict[str, Any]:
    """Say what this is, and what isn't in it."""
    export = taken.export
    return {
        "export_id": export.export_id,
        "patient_id": export.patient_id,
        "records": list(export.record_ids),
        "purpose": export.purpose.value,
        "recipient": export.recipient,
        "requested_at": export.requested_at,
        "services": {name: state.value for name, state in taken.states.items()},
        "left_out": [
            "results that aren't released yet" if export.for_patient else None,
            "messages of laboratories as they were received: one may be about several people",
            "messages to staff, and the names of staff",
            *(
                {"service": service, **missing}
                for service, part in taken.parts.items()
                for missing in part.others.get(LEFT_OUT, ())
            ),
        ],
    }


def bundle(taken: Taken, *, base_url: str) -> bytes:
    """Return the Bundle: resources of all parts, and what FHIR has none for as documents of JSON."""
    resources = [resource for part in taken.parts.values() for resource in part.resources]
    documents = [_document(taken, MANIFEST, manifest(taken))]
    documents += [
        _document(taken, f"{service}.{name}", rows)
        for service, part in taken.parts.items()
        for name, rows in _shown(part)
    ]
    collection = {
        "resourceType": "Bundle",
        "type": "collection",
        "identifier": {"system": EXPORTS, "value": taken.export.export_id},
        "timestamp": taken.export.completed_at or taken.export.gather_until,
        "entry": [
            {"fullUrl": f"{base_url}/{one['resourceType']}/{one['id']}", "resource": one}
            for one in (*documents, *resources)
        ],
    }
    return orjson.dumps(collection)


def _shown(part: Part) -> Iterator[tuple[str, Sequence[Json]]]:
    """Yield what stands for itself; what was left out stands in the manifest."""
    yield from ((name, rows) for name, rows in part.others.items() if rows and name != LEFT_OUT)


def _document(taken: Taken, name: str, content: object) -> dict[str, Any]:
    attachment = {
        "contentType": "application/json",
        "title": f"{name}.json",
        "data": base64.b64encode(orjson.dumps(content)).decode(),
    }
    return {
        "resourceType": "DocumentReference",
        "id": str(uuid5(NAMESPACE_URL, f"{EXPORTS}:{taken.export.export_id}:{name}")),
        "status": "current",
        "description": name,
        "subject": reference("Patient", taken.export.patient_id),
        "content": [{"attachment": attachment}],
    }


# -- for people


@dataclass(frozen=True, kw_only=True)
class Section:
    """Things of one kind, each as lines of (what, value)."""

    title: str
    things: Sequence[Sequence[tuple[str, str]]]


def sections(taken: Taken) -> list[Section]:
    kinds: dict[str, list[Json]] = {"Manifest": [orjson.loads(orjson.dumps(manifest(taken)))]}
    for service, part in taken.parts.items():
        for resource in part.resources:
            kinds.setdefault(resource["resourceType"], []).append(resource)
        for name, rows in _shown(part):
            kinds.setdefault(f"{service}: {name}", []).extend(rows)
    return [
        Section(title=title, things=[list(_lines(thing)) for thing in things])
        for title, things in kinds.items()
        if things
    ]


def shortened(found: Sequence[Section]) -> tuple[list[Section], int]:
    """Return as much as a document can hold, and how many things are left to the Bundle."""
    room, kept, left_out = MOST_LINES, [], 0
    for section in found:
        things = []
        for thing in section.things:
            room -= len(thing) + 1
            if room >= 0:
                things.append(thing)
            else:
                left_out += 1
        if things:
            kept.append(Section(title=section.title, things=things))
    return kept, left_out


def _lines(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Flatten what JSON nests: names joined by a dot, lists one after the other."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not (path == "" and name == "resourceType"):
                yield from _lines(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _lines(inner, path)
    elif value is not None:
        yield path, str(value)
