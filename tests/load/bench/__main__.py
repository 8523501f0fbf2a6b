"""`make bench`: how fast, as ratios against a limit measured in the same run on the same servers.

`BENCH_ONLY=bookings,relay` runs those alone, `BENCH_SECONDS` says how long each rate is taken.
A measurement is a function in a module of this package, registered by `needs_servers`, `needs_system`,
`needs_nothing`, or `needs_patience`: these run by name only (`BENCH_ONLY=lab_burst,soak`).
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clinic_local.paths import CHECKOUT, run_dir
from clinic_local.testing import running_system
from clinic_shared.auth import TokenSigner
from rich.console import Console
from rich.table import Table

from . import (
    auditing,
    bookings,
    door,
    flooding,
    laboratory,
    lasting,
    operating,
    overload,
    payments,
    rebuilding,
    relaying,
    whole,
)
from .figures import Figure, alone, on_servers, on_system, patient
from .servers import ISSUER, Bench, keys_served, servers

__all__ = [
    "auditing",
    "bookings",
    "door",
    "flooding",
    "laboratory",
    "lasting",
    "operating",
    "overload",
    "payments",
    "rebuilding",
    "relaying",
    "whole",
]


def named() -> set[str]:
    return set(filter(None, os.environ.get("BENCH_ONLY", "").split(",")))


def chosen(registered: Mapping[str, Any]) -> list[Any]:
    wanted = named()
    return [measure for name, measure in registered.items() if not wanted or name in wanted]


def chosen_on_system() -> list[Any]:
    wanted = named()
    return [*chosen(on_system), *(measure for name, measure in patient.items() if name in wanted)]


def refuse_unknown_names() -> None:
    known = [*on_servers, *alone, *on_system, *patient]
    unknown = named() - set(known)
    if unknown:
        sys.exit(f"BENCH_ONLY: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")


async def of_parts() -> list[Figure]:
    signer = TokenSigner.generate(issuer=ISSUER)
    figures: list[Figure] = []
    with servers() as (postgres, rabbitmq, secrets_dir):
        async with keys_served(signer) as jwks_url:
            bench = Bench(postgres, rabbitmq, signer, jwks_url, secrets_dir)
            for measure in chosen(on_servers):
                figures += await measure(bench)
    return figures


def of_the_whole() -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="polyclinic-bench-") as folder,
        running_system(Path(folder)) as system,
    ):
        for measure in chosen_on_system():
            yield from measure(system)


def measured() -> Iterator[Figure]:
    if chosen(on_servers):
        yield from asyncio.run(of_parts())
    for measure in chosen(alone):
        yield from measure()
    if chosen_on_system():
        yield from of_the_whole()


def show(figures: list[Figure]) -> None:
    table = Table(title=f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores")
    for heading in ("what", "ours", "limit of this run", "ratio", "target", ""):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for f in figures:
        limit, ratio = ("", "") if f.limit is None else (f"{f.limit:,.0f}{f.unit}", f"{f.compared:.2f}")
        target = f"{'<=' if f.at_most else '>='} {f.target:g}"
        verdict = "reached" if f.reached else "missed"
        table.add_row(f.name, f"{f.ours:,.6g} {f.unit}", limit, ratio, target, verdict)
    Console(width=130).print(table)


def main() -> None:
    os.environ.setdefault("CLINIC_ENVIRONMENT", "test")
    refuse_unknown_names()
    figures = list(measured())
    show(figures)
    rows = [figure.row() for figure in figures]
    (run_dir(CHECKOUT) / "bench.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
