"""Reads what is still owed to somebody: receipts of movements of money, and what people have to answer for."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import httpx

from .accounting import Obligation, Receipt

Rows = Callable[[str, LiteralString], list[tuple[Any, ...]]]

_MOVEMENTS: LiteralString = """
    SELECT DISTINCT movement_id::text, status FROM ledger_movement
    JOIN ledger_entry USING (movement_id) LEFT JOIN receipt ON receipt_id = movement_id
    WHERE currency = 'RUB' AND kind IN ('payment-received', 'payment-refunded', 'advance-applied')
"""
_RESULTS: LiteralString = """
    SELECT kind || ' ' || obligation_id, coalesce(owner_id::text, owner_role),
        (SELECT count(*) FROM timer t WHERE t.kind = 'lab-obligation' AND t.subject = obligation_id
            AND t.subject_version = version AND t.state = 'pending')
    FROM obligation WHERE status <> 'acknowledged'
"""
_RECEIPTS: LiteralString = """
    SELECT 'receipt ' || receipt_id, 'registrar', (SELECT count(*) FROM timer t
        WHERE t.kind = 'receipt-overdue' AND t.subject = receipt_id AND t.state = 'pending')
    FROM receipt WHERE status <> 'done' AND document IS NOT NULL AND overdue_at IS NULL
"""


class Registrar:
    """Who registers receipts, asked how often it has registered what."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before: Counter[str] = Counter()

    def registered(self) -> Counter[str]:
        """Return how often each movement's receipt was registered."""
        answer = httpx.get(f"{self._url}/_control/atol/documents", trust_env=False, timeout=60)
        documents = answer.raise_for_status().json()["items"]
        return self._before + Counter(
            document["external_id"].rpartition("-")[0] for document in documents if document["registered"]
        )

    def remember(self) -> None:
        """Keep what was registered so far: the registrar is about to forget it."""
        self._before = self.registered()


def receipts(rows: Rows, registered: Counter[str]) -> Iterator[Receipt]:
    for movement, status in rows("billing", _MOVEMENTS):
        yield Receipt(movement, status, registered[movement])


def obligations(rows: Rows) -> Iterator[Obligation]:
    for service, statement in (("lab-integration", _RESULTS), ("billing", _RECEIPTS)):
        for what, owner, timers in rows(service, statement):
            yield Obligation(what, owner, timers)
