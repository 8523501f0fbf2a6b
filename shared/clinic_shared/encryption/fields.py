"""Fields of a row that say something of a person: sealed together in one column, under a data key of the row's own.

Their own columns are empty meanwhile. A row without a data key is as the release before stored it; the table's `Kind`,
named in `Service.encrypted`, has it sealed by the worker and its key followed by a rotation.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import orjson
from sqlalchemy import Column, LargeBinary, Row, Table

from clinic_shared.database import Transaction
from clinic_shared.encryption.backlog import Kind
from clinic_shared.encryption.ciphers import Place
from clinic_shared.encryption.keyring import Keyring

_SEALED = "sealed"
_DATA_KEY = "data_key"
_BLIND = "~"
SEAL_COLUMNS = (_SEALED, _DATA_KEY)


def blind_form(keyring: Keyring, purpose: str, value: str) -> str:
    """Return what stands for a value where it is sealed: the same for the same one. Raises KeysUnavailableError."""
    return _BLIND + base64.urlsafe_b64encode(keyring.blind(purpose, value)).rstrip(b"=").decode()


def forms(keyring: Keyring, purpose: str, value: str) -> tuple[str, str]:
    """Return all that a value may be stored as, by this release and the one before."""
    return value, blind_form(keyring, purpose, value)


def seal_columns() -> tuple[Column[Any], ...]:
    """Return the columns that a table with sealed fields has."""
    return Column(_SEALED, LargeBinary), Column(_DATA_KEY, LargeBinary)


@dataclass(frozen=True)
class SealedFields:
    """`empty` is what the fields' own columns hold while they are sealed; `read` makes of JSON what isn't JSON's.

    `indexed` are those whose columns hold the blind index of a purpose meanwhile, to be found by and kept unique.
    """

    table: Table
    empty: Mapping[str, Any]
    read: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    indexed: Mapping[str, str] = field(default_factory=dict)

    def stored(self, tx: Transaction, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's values as they are stored. Raises KeysUnavailableError."""
        if not tx.keyring.encrypting:
            return {**values, _SEALED: None, _DATA_KEY: None}
        found_by = {
            name: blind_form(tx.keyring, purpose, values[name]) for name, purpose in self.indexed.items()
        }
        left = {**values, **self.empty, **found_by}
        content = orjson.dumps({name: values[name] for name in self.names})
        sealed = tx.keyring.seal_row(self._place(tx.service, left), {_SEALED: content})
        return {**left, _SEALED: sealed.values[_SEALED], _DATA_KEY: sealed.data_key}

    def opened(self, tx: Transaction, row: Row[Any]) -> Any:
        """Return a row, read with its key's columns, as it came. Raises KeysUnavailableError, SealBrokenError."""
        values = row._asdict()
        sealed, data_key = values.pop(_SEALED), values.pop(_DATA_KEY)
        if data_key is not None:
            place = self._place(tx.service, values)
            content = tx.keyring.open_row(place, data_key, {_SEALED: sealed})[_SEALED]
            values |= {
                name: self._read(name, value) for name, value in orjson.loads(content or b"{}").items()
            }
        return SimpleNamespace(**values)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.empty, *self.indexed)

    @cached_property
    def kind(self) -> Kind:
        return Kind(self.table, lambda service, row: self._place(service, row._asdict()), self._sealed)

    def _sealed(self, tx: Transaction, row: Row[Any]) -> dict[str, Any]:
        stored = self.stored(tx, row._asdict())
        return {name: stored[name] for name in (*self.names, *SEAL_COLUMNS)}

    def _place(self, service: str, values: Mapping[str, Any]) -> Place:
        key = "/".join(str(values[column.name]) for column in self.table.primary_key.columns)
        return Place(service, self.table.name, key)

    def _read(self, name: str, value: Any) -> Any:
        return self.read[name](value) if name in self.read and value is not None else value
