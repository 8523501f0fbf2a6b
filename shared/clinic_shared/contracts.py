"""The contracts between services as the code sees them: subscriptions, event schemas, taxonomy.

Everything is read from `contracts/`, which leads; nothing here is generated from code. What a contract
refuses is named by JSON pointer and keyword, never by value: payloads hold patient data.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import yaml
from jsonschema_rs import Draft202012Validator, ValidationError, ValidationErrorKind

from clinic_shared.compatibility import breaking_changes

CONTRACTS_DIR = Path(__file__).resolve().parents[2] / "contracts"

PLATFORM = "platform"
"""Stands as the producer of what services ask of each other's event logs; any service may publish it."""


class UnknownContractError(LookupError):
    """There is no such event type, service or taxonomy."""


class ContractViolationError(ValueError):
    """An event doesn't match its schema. `problems` are JSON pointers with the keyword that failed."""

    def __init__(self, event_type: str, problems: list[str]) -> None:
        super().__init__(f"{event_type} does not match its contract: {', '.join(problems)}")
        self.event_type = event_type
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class ServiceEntry:
    """A service of `subscriptions.yaml`."""

    name: str
    package: str
    rebuilds: bool = False
    """Its read model is rebuilt from the others' event logs."""


@dataclass(frozen=True, kw_only=True)
class EventType:
    """An event type and who keeps it.

    `broadcast` ones have no consumer: they reach the listeners that run right now, so a publisher must
    not insist on a queue. `stands_alone`: no later event of its aggregate makes up for it.
    """

    producer: str
    name: str
    version: int
    consumers: tuple[str, ...]
    broadcast: bool = False
    stands_alone: bool = False

    @property
    def type(self) -> str:
        """The CloudEvents type, which is also the routing key: `scheduling.appointment-booked.v1`."""
        return f"{self.producer}.{self.name}.v{self.version}"

    @property
    def title(self) -> str:
        """The name in prose and code: `AppointmentBooked`."""
        return "".join(part.capitalize() for part in self.name.split("-"))

    @property
    def schema_path(self) -> str:
        """Where the schema stands, relative to `contracts/`."""
        return f"events/{self.producer}/{self.name}.v{self.version}.json"


@dataclass(frozen=True, kw_only=True)
class Contracts:
    """All contracts of one folder."""

    folder: Path
    services: Mapping[str, ServiceEntry]
    listeners: Mapping[str, ServiceEntry]
    events: Mapping[str, EventType]
    platform: Mapping[str, EventType]
    """What services ask of each other's event logs; every service has a queue for it."""
    _validators: dict[str, Draft202012Validator] = field(default_factory=dict, repr=False, compare=False)

    def event(self, event_type: str) -> EventType:
        """Return an event type. Raises UnknownContractError."""
        try:
            return self.events.get(event_type) or self.platform[event_type]
        except KeyError:
            raise UnknownContractError(f"{event_type} is not in subscriptions.yaml") from None

    def published_by(self, producer: str) -> tuple[EventType, ...]:
        return tuple(event for event in self.events.values() if event.producer == producer)

    def consumed_by(self, consumer: str) -> tuple[EventType, ...]:
        return tuple(event for event in self.events.values() if consumer in event.consumers)

    def producers_of(self, consumer: str) -> tuple[str, ...]:
        """Return the producers that a consumer has a queue for, in the order of the file."""
        return tuple(dict.fromkeys(event.producer for event in self.consumed_by(consumer)))

    def schema(self, event_type: str) -> dict[str, Any]:
        return _read_json(self.folder / self.event(event_type).schema_path)

    def examples(self, event_type: str) -> list[dict[str, Any]]:
        """Return the bodies (`data`, mostly `private` too) that every consumer must accept."""
        return list(self.schema(event_type)["examples"])

    def validate_event(
        self, event_type: str, data: Mapping[str, Any], private: Mapping[str, Any] | None = None
    ) -> None:
        """Check a producer's event as it will stand on the wire. Raises ContractViolationError."""
        body = {"data": data} if private is None else {"data": data, "private": private}
        on_the_wire = orjson.loads(orjson.dumps(body))
        errors = self._validator(event_type).iter_errors(on_the_wire)
        problems = sorted({problem for error in errors for problem in _problems(error)})
        if problems:
            raise ContractViolationError(event_type, problems)

    def taxonomy(self, name: str) -> Mapping[str, Any]:
        """Return `taxonomy/<name>.yaml`. Raises UnknownContractError."""
        try:
            return _read_yaml(self.folder / "taxonomy" / f"{name}.yaml")
        except FileNotFoundError:
            raise UnknownContractError(f"there is no taxonomy {name}") from None

    def scopes_by_role(self) -> dict[str, list[str]]:
        roles = self.taxonomy("roles")["roles"]
        return {name: list(role["scopes"]) for name, role in roles.items()}

    def scopes(self) -> frozenset[str]:
        """Return every scope that a route may ask for."""
        return frozenset(self.taxonomy("roles")["scopes"])

    def statuses(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the statuses of one kind of aggregate, e.g. `appointment`, with their legal moves."""
        try:
            return dict(self.taxonomy("statuses")[kind])
        except KeyError:
            raise UnknownContractError(f"there are no statuses of {kind}") from None

    def released_path(self, event: EventType) -> Path:
        return self.folder / "released" / event.schema_path

    def breaking_changes(self) -> list[str]:
        """Return what differs from the released schemas in a way that needs a new version."""
        problems: list[str] = []
        for released in sorted((self.folder / "released" / "events").rglob("*.json")):
            current = self.folder / released.relative_to(self.folder / "released")
            if not current.exists():
                problems.append(f"{current.parent.name}/{current.stem}: was removed")
                continue
            changes = breaking_changes(_read_json(released), _read_json(current))
            problems += [f"{current.parent.name}/{current.stem}{change}" for change in changes]
        return problems

    def _validator(self, event_type: str) -> Draft202012Validator:
        if event_type not in self._validators:
            schema = self.schema(event_type)
            self._validators[event_type] = Draft202012Validator(schema, validate_formats=True)
        return self._validators[event_type]


@lru_cache
def load(folder: Path = CONTRACTS_DIR) -> Contracts:
    """Read `subscriptions.yaml`; schemas follow when they are asked for."""
    document = _read_yaml(folder / "subscriptions.yaml")
    services = _entries(document["services"])
    everybody = {name: {"consumers": list(services)} for name in document[PLATFORM]}
    return Contracts(
        folder=folder,
        services=services,
        listeners=_entries(document["listeners"]),
        events={event.type: event for event in _event_types(document["events"])},
        platform={event.type: event for event in _event_types({PLATFORM: everybody})},
    )


def validate_event(
    event_type: str, data: Mapping[str, Any], private: Mapping[str, Any] | None = None
) -> None:
    """Check an event against the contracts of this checkout. Raises ContractViolationError."""
    load().validate_event(event_type, data, private)


def examples(event_type: str) -> list[dict[str, Any]]:
    return load().examples(event_type)


def scopes_by_role() -> dict[str, list[str]]:
    return load().scopes_by_role()


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


@lru_cache
def _read_yaml(path: Path) -> Mapping[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _entries(section: Mapping[str, Mapping[str, Any]]) -> dict[str, ServiceEntry]:
    return {
        name: ServiceEntry(name=name, package=entry["package"], rebuilds=entry.get("rebuilds", False))
        for name, entry in section.items()
    }


def _event_types(section: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[EventType]:
    for producer, events in section.items():
        for key, entry in events.items():
            name, _, version = key.rpartition(".v")
            yield EventType(
                producer=producer,
                name=name,
                version=int(version),
                consumers=tuple(entry["consumers"]),
                broadcast=bool(entry.get("broadcast", False)),
                stands_alone=bool(entry.get("stands_alone", False)),
            )


def _problems(error: ValidationError) -> list[str]:
    """Name what failed; for a missing or unexpected property, that property's own pointer."""
    parent = "".join(f"/{step}" for step in error.instance_path)
    match error.kind:
        case ValidationErrorKind.Required(property=name):
            return [f"{parent}/{name} (required)"]
        case ValidationErrorKind.AdditionalProperties(unexpected=names):
            return [f"{parent}/{name} (additionalProperties)" for name in names]
        case _:
            return [f"{parent or '/'} ({error.kind.name})"]


def _write_asyncapi(contracts: Contracts) -> None:
    from clinic_shared.asyncapi import asyncapi_yaml  # noqa: PLC0415  # it imports this module

    (contracts.folder / "asyncapi.yaml").write_text(asyncapi_yaml(contracts), encoding="utf-8")


def _check(contracts: Contracts) -> None:
    problems = contracts.breaking_changes()
    if problems:
        raise SystemExit("\n".join(["A new version is needed (contracts/README.md):", *problems]))


def _release(contracts: Contracts) -> None:
    _check(contracts)
    for event in (*contracts.events.values(), *contracts.platform.values()):
        released = contracts.released_path(event)
        released.parent.mkdir(parents=True, exist_ok=True)
        released.write_bytes((contracts.folder / event.schema_path).read_bytes())


_COMMANDS = {"asyncapi": _write_asyncapi, "check": _check, "release": _release}


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m clinic_shared.contracts")
    parser.add_argument("command", choices=sorted(_COMMANDS))
    _COMMANDS[parser.parse_args().command](load())


if __name__ == "__main__":
    _main()
