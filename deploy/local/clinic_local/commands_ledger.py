"""`clinic ledger`: does everything that was answered have exactly one fate, and is no money lost?"""

from typing import Any

import typer
from rich.text import Text

from clinic_local.operations import AsJson, ask_all, operator, print_json, print_table, warn_of_unreachable

_COUNTS = (
    "answered",
    "applied",
    "parked",
    "rejected",
    "superseded",
    "duplicate",
    "discarded",
    "in_flight",
)


def ledger(*, as_json: AsJson = False) -> None:
    """Show what became of every answered message, per interface, and the sum of all money movements.

    Exit status 1 when something doesn't add up, or when a service didn't answer.
    """
    with operator() as caller:
        merged = ask_all(caller, "ledger")
    lines = merged.get("interfaces", [])
    money = {
        service: part["money_sum_minor"]
        for service, part in merged["services"].items()
        if part.get("money_sum_minor") is not None
    }
    balanced = all(line["balanced"] for line in lines) and not any(money.values())
    if as_json:
        print_json(
            {
                "balanced": balanced,
                "interfaces": lines,
                "money_sum_minor": money,
                "unreachable": merged["unreachable"],
            }
        )
    else:
        _show(lines, money)
        warn_of_unreachable(merged)
    if not balanced or merged["unreachable"]:
        raise typer.Exit(1)


def _show(lines: list[dict[str, Any]], money: dict[str, int]) -> None:
    columns = ("service", "interface", *(name.replace("_", " ") for name in _COUNTS), "adds up")
    print_table(
        columns,
        (
            (
                line["service"],
                line["interface"],
                *(line[name] for name in _COUNTS),
                _verdict(is_right=line["balanced"]),
            )
            for line in lines
        ),
    )
    print()
    print_table(
        ("money", "sum of movements (minor units)", "is zero"),
        ((service, total, _verdict(is_right=total == 0)) for service, total in money.items()),
    )


def _verdict(*, is_right: bool) -> Text:
    return Text("yes", "green") if is_right else Text("NO", "bold red")
