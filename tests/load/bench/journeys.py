"""`make load`: everybody's day at once, each step's 95th percentile against the same step on an idle platform.

`LOAD_USERS` multiplies who comes (reception, phones, laboratories, payers; by default as many as cores),
`LOAD_SECONDS` says how long each of the two runs lasts. Exits with 1 when a request failed, a step became slower
than its ratio allows, or too many were told to come again.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.paths import CHECKOUT
from clinic_local.testing import System, running_system
from rich.console import Console
from rich.table import Table

from .whole import network_of, register, registrar

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PANEL = CHECKOUT / "contracts" / "hl7" / "panel.hl7"
USERS = int(os.environ.get("LOAD_USERS") or os.cpu_count() or 1)
SECONDS = int(os.environ.get("LOAD_SECONDS", "60"))
PATIENTS = 20
ALONE = {"Reception": 1, "Phone": 1, "Laboratory": 1, "Payer": 1}
TOGETHER = {"Reception": 2 * USERS, "Phone": 3 * USERS, "Laboratory": USERS, "Payer": max(1, USERS // 4)}
SLOWER_AT_MOST = 5.0
AGAIN_AT_MOST = 0.1
"""Of those who ask, so many may be told once to come again: more, and the platform is too small for them."""
AGAIN = " (told to come again)"
UNCOUNTED = {"Aggregated", "(the provider)", "/v1/auth/login"}
_FEWEST = 5
"""A percentile of fewer measurements says nothing."""


@dataclass(frozen=True)
class Step:
    requests: int
    failures: int
    p95_ms: float


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="polyclinic-load-") as folder,
        running_system(
            Path(folder),
            CLINIC_ENVIRONMENT="test",
            CLINIC_RATE_SIGN_IN_PER_SECOND="0",
        ) as system,
    ):
        cast = cast_of(system)
        alone = run(system, {**cast, "users": ALONE, "first_number": 10_000}, SECONDS)
        together = run(system, {**cast, "users": TOGETHER, "first_number": 20_000}, SECONDS)
    failed = [*show(alone, together)]
    for reason in failed:
        print(reason, file=sys.stderr)
    sys.exit(bool(failed))


def cast_of(system: System) -> dict[str, Any]:
    network = network_of(system)
    with registrar(system) as caller:
        patients = [_with_an_account(caller, network) for _ in range(PATIENTS)]
    return {
        "registrar": _staff(network, "registrar"),
        "doctor": _staff(network, "dermatologist"),
        "patients": patients,
        "lab": {"login": network.lab_client_id, "password": network.lab_client_secret},
        "fakes": system.addresses["CLINIC_FAKES_URL"],
        "panel": PANEL.read_text(encoding="utf-8"),
        "again": AGAIN,
        "registration": {
            "centre_id": network.centre_id,
            "name": {"family": "Тестова", "given": "Анна"},
            "birth_on": "1990-01-02",
            "sex": "female",
            "language": "ru",
        },
        "visit": {
            "service_id": network.services["dermatology"],
            "centre_id": network.centre_id,
            "department_id": network.departments["dermatology"],
            "practitioner_id": network.staff["dermatologist"],
            "room_id": network.rooms["dermatology"],
        },
    }


def _staff(network: Network, person: str) -> dict[str, str]:
    return {"login": network.login_of(person), "password": network.password}


def _with_an_account(caller: Caller, network: Network) -> dict[str, str]:
    patient = register(caller, network)
    login = f"load.{patient['patient_id']}@example.org"
    account = caller.post("/v1/users/patients", {"patient_id": patient["patient_id"], "login": login})
    number = next(i["value"] for i in patient["identifiers"] if i["type"] == "MR")
    return {
        "patient_id": patient["patient_id"],
        "record_number": number,
        "login": login,
        "password": account["initial_password"],
    }


def run(system: System, cast: Mapping[str, Any], seconds: int) -> dict[str, Step]:
    """Run Locust in a process of its own, since it patches what it blocks in; returns the steps by name."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="polyclinic-cast-")))
        (folder / "cast.json").write_text(json.dumps(cast), encoding="utf-8")
        users = sum(cast["users"].values())
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        command += ["--host", system.url, "-u", str(users), "-r", str(users), "-t", f"{seconds}s"]
        command += ["--csv", str(folder / "run"), "--exit-code-on-error", "0", "--stop-timeout", "90"]
        environment = {**os.environ, "CLINIC_LOAD_CAST": str(folder / "cast.json"), "NO_PROXY": "127.0.0.1"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        if broken := _rows(folder / "run_exceptions.csv"):
            sys.exit(f"a journey broke off: {broken[0]['Message']}")
        return {row["Name"]: _step(row) for row in _rows(folder / "run_stats.csv")}


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def _step(row: Mapping[str, str]) -> Step:
    return Step(int(row["Request Count"]), int(row["Failure Count"]), float(row["95%"] or 0))


def show(alone: Mapping[str, Step], together: Mapping[str, Step]) -> Iterator[str]:
    """Print the table; yields what is wrong."""
    table = Table(
        title=f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {sum(TOGETHER.values())} users"
    )
    for heading in ("step", "times", "again", "failed", "p95 idle, ms", "p95 now, ms", "ratio"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    wrong = [f"{name}: nobody came so far" for name in alone.keys() - together.keys() if AGAIN not in name]
    for name, step in together.items():
        idle = alone.get(name)
        if name in UNCOUNTED or idle is None or idle.requests < _FEWEST:
            continue
        again = together[name + AGAIN].requests if name + AGAIN in together else 0
        ratio = step.p95_ms / max(1.0, idle.p95_ms)
        milliseconds = f"{idle.p95_ms:.0f}", f"{step.p95_ms:.0f}"
        table.add_row(name, *map(str, (step.requests, again, step.failures)), *milliseconds, f"{ratio:.1f}")
        if ratio > SLOWER_AT_MOST:
            wrong.append(f"{name}: {ratio:.1f} times as slow as idle, {SLOWER_AT_MOST:g} allowed")
        if again > AGAIN_AT_MOST * (step.requests + again):
            wrong.append(f"{name}: {again} of {step.requests + again} were told to come again")
    wrong += [
        f"{name}: {step.failures} of {step.requests} failed"
        for name, step in together.items()
        if step.failures
    ]
    Console(width=100).print(table)
    yield from wrong


if __name__ == "__main__":
    main()
