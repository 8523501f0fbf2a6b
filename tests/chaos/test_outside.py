"""What left the platform, as the checker counts it: each thing that can go wrong is planted, and found by its name."""

from collections import Counter
from collections.abc import Callable
from typing import Any, LiteralString
from uuid import UUID

import pytest

from . import outside
from .accounting import Snapshot, Violation, judge
from .history import Answer, History

MARK = "chaos-"
ASKED, OTHERS = f"{MARK}1", "asked by somebody else"
APPOINTMENT = str(UUID(int=1))


class World:
    """What stands in the databases and at the laboratory. Sound, until something is planted."""

    def __init__(self) -> None:
        self.tables: dict[str, list[tuple[Any, ...]]] = {
            "lab_order": [(1, ASKED), (2, OTHERS)],
            "order_transmission": [("control-1", 1), ("control-2", 2)],
            "ledger_movement": [("refund",)],
            "timeline_entry": [(APPOINTMENT,), ("another appointment",)],
        }
        self.taken = ["control-1", "control-2"]
        self.history = History()
        for kind, key in (
            (outside.ORDER, ASKED),
            (outside.REFUND, "refund"),
            (outside.MENDED, APPOINTMENT),
        ):
            self.history.record(kind, key, Answer.ACKED)

    def rows(self, _service: str, statement: LiteralString) -> list[tuple[Any, ...]]:
        return next(rows for table, rows in self.tables.items() if f"FROM {table}" in statement)

    def effects(self) -> dict[str, dict[str, Counter[str]]]:
        return {
            outside.ORDER: outside.orders(self.rows, self.taken, mark=MARK),
            outside.REFUND: outside.refunds(self.rows),
            outside.MENDED: outside.mended(self.rows, self.history),
        }

    def findings(self) -> list[tuple[Violation, str]]:
        found = judge(Snapshot(effects=self.effects()), self.history).findings
        return [(finding.violation, finding.where) for finding in found]


def keep_an_order_to_oneself(world: World) -> None:
    world.taken.remove("control-1")


def send_an_order_under_two_names(world: World) -> None:
    world.tables["order_transmission"].append(("control-3", 1))
    world.taken.append("control-3")


def order_twice(world: World) -> None:
    world.tables["lab_order"].append((3, ASKED))


def send_what_nobody_ordered(world: World) -> None:
    world.taken.append("control-4")


def forget_a_refund(world: World) -> None:
    world.tables["ledger_movement"].clear()


def book_a_refund_twice(world: World) -> None:
    world.tables["ledger_movement"].append(("refund",))


def give_back_what_nobody_asked_for(world: World) -> None:
    world.tables["ledger_movement"].append(("another refund",))


def lose_what_was_mended(world: World) -> None:
    world.tables["timeline_entry"].remove((APPOINTMENT,))


def let_the_original_take_effect_beside_its_copy(world: World) -> None:
    world.tables["timeline_entry"].append((APPOINTMENT,))


def test_a_sound_world_has_no_findings() -> None:
    assert World().findings() == []


@pytest.mark.parametrize(
    ("plant", "violation", "where"),
    [
        (keep_an_order_to_oneself, Violation.LOST, "lab order: laboratory"),
        (send_an_order_under_two_names, Violation.DUPLICATE, "lab order: laboratory"),
        (order_twice, Violation.DUPLICATE, "lab order: ordered"),
        (send_what_nobody_ordered, Violation.PHANTOM, "lab order: laboratory"),
        (forget_a_refund, Violation.LOST, "refund: ledger"),
        (book_a_refund_twice, Violation.DUPLICATE, "refund: ledger"),
        (give_back_what_nobody_asked_for, Violation.PHANTOM, "refund: ledger"),
        (lose_what_was_mended, Violation.LOST, "mended event: timeline"),
        (let_the_original_take_effect_beside_its_copy, Violation.DUPLICATE, "mended event: timeline"),
    ],
)
def test_what_is_planted_outside_is_found_and_nothing_else(
    plant: Callable[[World], None], violation: Violation, where: str
) -> None:
    world = World()
    plant(world)
    assert world.findings() == [(violation, where)]
