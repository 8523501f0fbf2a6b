"""Reads what left the platform and what came of it: orders at the laboratory, refunds, messages that were mended."""

from collections import Counter
from collections.abc import Collection
from typing import LiteralString

import httpx

from .history import History
from .owing import Rows

ORDER, REFUND, MENDED = "lab order", "refund", "mended event"
MENDED_AT = "patients"
"""The consumer whose messages are mended."""


class Laboratory:
    """The stand-in that takes orders, asked which have come: one that comes again, with its control id, is one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before: frozenset[str] = frozenset()

    def taken(self) -> frozenset[str]:
        answer = httpx.get(f"{self._url}/_control/laboratory", trust_env=False, timeout=60)
        return self._before | answer.raise_for_status().json()["taken"].keys()

    def remember(self) -> None:
        """Keep what came so far: the stand-in is about to forget it."""
        self._before = self.taken()


def orders(rows: Rows, taken: Collection[str], *, mark: str) -> dict[str, Counter[str]]:
    """Return how often each order was placed, and under how many control ids the laboratory has it."""
    placed: dict[object, str] = dict(
        rows("lab-integration", "SELECT lab_order_id, coalesce(clinical_note, '') FROM lab_order")
    )
    sent: dict[str, object] = dict(
        rows("lab-integration", "SELECT control_id, lab_order_id FROM order_transmission")
    )
    asked_for = Counter(placed[sent[one]] if one in sent else f"{mark}unasked {one}" for one in taken)
    return {
        place: Counter({key: count for key, count in found.items() if key.startswith(mark)})
        for place, found in (("ordered", Counter(placed.values())), ("laboratory", asked_for))
    }


def refunds(rows: Rows) -> dict[str, Counter[str]]:
    statement: LiteralString = "SELECT source_id::text FROM ledger_movement WHERE kind = 'payment-refunded'"
    return {"ledger": Counter(one for (one,) in rows("billing", statement))}


def mended(rows: Rows, history: History) -> dict[str, Counter[str]]:
    known = history.operations(MENDED)
    statement: LiteralString = "SELECT source_id::text FROM timeline_entry WHERE kind = 'appointment'"
    return {"timeline": Counter(one for (one,) in rows(MENDED_AT, statement) if one in known)}
