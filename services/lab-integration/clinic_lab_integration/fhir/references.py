"""What a reference inside a Bundle means (http://hl7.org/fhir/R4/bundle.html#references).

Contained resources by `#id`, entries by their fullUrl, or by `Type/id` where that names one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clinic_lab_integration.fhir.elements import Element


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that has a resource."""

    index: int
    full_url: str
    method: str
    resource: Element


class References:
    """The resources of a Bundle by everything that they may be called."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._by_name: dict[str, Element] = {}
        for entry in entries:
            for name in _names(entry):
                self._by_name.setdefault(name, entry.resource)

    def resolve(self, reference: Element, inside: Element) -> Element | None:
        """The resource that a Reference element means; None where it isn't here."""
        name = reference.text("reference")
        if name.startswith("#"):
            return _contained(inside, name[1:])
        return self._by_name.get(_without_version(name)) if name else None


def _names(entry: Entry) -> list[str]:
    kind, resource_id = entry.resource.type, entry.resource.value.get("id")
    names = [_without_version(entry.full_url)] if entry.full_url else []
    if kind and isinstance(resource_id, str):
        names.append(f"{kind}/{resource_id}")
    parts = entry.full_url.rstrip("/").split("/")
    if "://" in entry.full_url and len(parts) > 1:
        names.append("/".join(parts[-2:]))
    return names


def _without_version(name: str) -> str:
    return name.partition("/_history/")[0]


def _contained(inside: Element, resource_id: str) -> Element | None:
    every = inside.children("contained")
    return next((one for one in every if one.value.get("id") == resource_id), None)
