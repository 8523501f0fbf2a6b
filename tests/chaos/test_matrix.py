"""Fixed parts of what `make chaos` does: seeded faults under traffic, and then the books.

`make test` has half a minute of those that need no tampering with connections and clocks, `make test-extended` all.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from clinic_local.testing import System
from clinic_shared.testing import eventually

from . import matrix, report
from .people import Desk
from .scene import NEMESES
from .server_harm import Broker, table_locked
from .stage import Stage

SEED = 20_260_115
SECONDS = 75
SHORT_SEED = 20_261_123
SHORT_SECONDS = 30
FEWEST_KINDS = 4
TIMEOUT_SECONDS = 1_800
"""For a machine that is busy with other things; it waits for what still moves."""
OFTEN_MILLISECONDS = 500
TIMEOUT_MILLISECONDS = 1_000


@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_half_a_minute_of_faults_costs_nothing(stage: Stage) -> None:
    assert len(struck_by(stage, SHORT_SEED, SHORT_SECONDS)) >= FEWEST_KINDS


@pytest.mark.extended
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_whatever_happens_nothing_is_lost_doubled_or_invented(stage: Stage) -> None:
    assert len(struck_by(stage, SEED, SECONDS)) > len(NEMESES) // 2


def struck_by(stage: Stage, seed: int, seconds: int) -> set[str]:
    """Let things go wrong for so long; returns which kinds of faults did, once it is clear that they cost nothing."""
    done = matrix.run(stage, seed=seed, seconds=seconds, tell=lambda line: print(line, flush=True))
    print(report.faults(done.injections), report.operations(done.verdict), sep="\n\n")
    assert done.passed, f"\n{done.verdict}"
    return {injection.nemesis for injection in done.injections}


@pytest.mark.extended
async def test_a_consumer_that_thinks_too_long_loses_its_channel_and_nothing_else(
    stage: Stage, system: System, broker: Broker, desk: Desk
) -> None:
    """RabbitMQ asks for an acknowledgement within half an hour; here within a second."""
    patient = desk.register()
    log = Path(system.process("postgres").log).with_name("rabbitmq.log")
    with broker.impatient(TIMEOUT_MILLISECONDS, looking_every=OFTEN_MILLISECONDS):
        stage.wires["rabbitmq"].cut("patients")
        with table_locked(system, "patients", "inbox"):
            desk.book(patient)
            await eventually(_says(log, "has timed out waiting for", log.stat().st_size), within_seconds=60)
    stage.wires["rabbitmq"].cut("patients")


def _says(log: Path, words: str, beyond: int) -> Callable[[], bool]:
    return lambda: words.encode() in log.read_bytes()[beyond:]
