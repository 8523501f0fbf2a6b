"""Elements of a resource, read with their place in it: what has another JSON type than FHIR says is an issue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from clinic_lab_integration.fhir.issues import Issue, Severity


@dataclass(frozen=True, slots=True)
class Element:
    """`strict` elements belong to the result itself: what is wrong in them refuses it."""

    value: Mapping[str, Any]
    path: str
    issues: list[Issue] = field(repr=False)
    strict: bool = True

    # -- reporting

    def report(self, name: str, code: str, text: str, severity: Severity | None = None) -> None:
        severity = severity or (Severity.ERROR if self.strict else Severity.WARNING)
        path = f"{self.path}.{name}" if name else self.path
        self.issues.append(Issue(severity, code, path, text))

    def loosely(self) -> "Element":
        """The same where mistakes are reported, and refuse nothing."""
        return Element(self.value, self.path, self.issues, strict=False)

    # -- reading

    def has(self, name: str) -> bool:
        return self.value.get(name) is not None

    def text(self, name: str) -> str:
        value = self.value.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or not value.strip():
            self.report(name, "structure", "This must be a string that is not empty")
            return ""
        return value.strip()

    def number(self, name: str) -> str:
        """A decimal's digits as they were written: 4.10 is not 4.1."""
        value = self.value.get(name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self.report(name, "value", "This must be a JSON number")
            return ""
        return str(value)

    def child(self, name: str) -> "Element | None":
        value = self.value.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.report(name, "structure", "This must be an object")
            return None
        return Element(value, f"{self.path}.{name}", self.issues, self.strict)

    def children(self, name: str) -> list["Element"]:
        value = self.value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.report(name, "structure", "This must be an array")
            return []
        found = []
        for index, one in enumerate(value):
            place = f"{name}[{index}]"
            if isinstance(one, dict):
                found.append(Element(one, f"{self.path}.{place}", self.issues, self.strict))
            else:
                self.report(place, "structure", "This must be an object")
        return found

    def texts(self, name: str) -> list[str]:
        value = self.value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.report(name, "structure", "This must be an array")
            return []
        return [one for one in value if isinstance(one, str)]

    @property
    def type(self) -> str:
        """`resourceType` of a resource."""
        value = self.value.get("resourceType")
        return value if isinstance(value, str) else ""
