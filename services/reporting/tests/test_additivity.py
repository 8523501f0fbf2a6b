"""Generated streams of events: centres are the sum of their departments, and order doesn't matter."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from clinic_reporting import tables
from sqlalchemy import delete

from .conftest import PERIOD, Network, Stream, hear

REPORTS = ("appointments", "utilisation", "referrals", "laboratory", "revenue", "activity")
NOT_SUMS = {
    "missed_rate",
    "used_rate",
    "conversion_to_visit",
    "median_seconds",
    "p90_seconds",
}
"""Rates and medians: of the whole, not of its parts."""

NAMES = ("service_code", "on")
"""What tells the members of a list of figures apart."""

Figure = tuple[Any, ...]


def figures(value: Any, path: Figure = ()) -> Iterator[tuple[Figure, int]]:
    """Yield every number of an answer that must add up, with its path."""
    if isinstance(value, dict):
        for name, member in value.items():
            if name not in NOT_SUMS:
                yield from figures(member, (*path, name))
    elif isinstance(value, list):
        for member in value:
            key = next(member[name] for name in NAMES if name in member)
            yield from figures(member, (*path, key))
    elif isinstance(value, int):
        yield path, value


def summed_by_centre(items: list[dict[str, Any]]) -> Counter[Figure]:
    sums: Counter[Figure] = Counter()
    for item in items:
        ends = [item[end] for end in ("from", "to")] if "from" in item else [item]
        line = (*(end["centre_id"] for end in ends), item.get("currency"))
        for path, number in figures(item):
            sums[*line, *path] += number
    return sums


async def answers(network: Network) -> dict[str, dict[str, Any]]:
    return {
        f"{report} by {level}": (await network.get(report, level=level)).json()
        for report in REPORTS
        for level in ("department", "centre")
    }


@pytest.mark.parametrize("seed", range(3))
async def test_every_figure_of_a_centre_is_the_sum_of_its_departments(network: Network, seed: int) -> None:
    await hear(network, Stream(network, seed).told)
    heard = await answers(network)
    for report in REPORTS:
        departments = heard[f"{report} by department"]["items"]
        centres = heard[f"{report} by centre"]["items"]
        assert summed_by_centre(centres) == summed_by_centre(departments), report
        assert sum(summed_by_centre(centres).values()) > 0, report
    lines = Counter({name: len(answer["items"]) for name, answer in heard.items()})
    # The two levels are not the same answer under two names.
    assert any(lines[f"{report} by centre"] < lines[f"{report} by department"] for report in REPORTS)


async def test_a_reordered_and_duplicated_stream_gives_the_same_read_model(network: Network) -> None:
    stream = Stream(network, seed=7)
    await hear(network, stream.told)
    in_order, told_in_order = await network.read_model(), await answers(network)
    async with network.reporting.runtime.database.transaction() as tx:
        for table in tables.metadata.tables.values():
            if table not in (tables.centre, tables.department):
                await tx.execute(delete(table))
    mixed = [*stream.told, *stream.told]
    random.Random(7).shuffle(mixed)
    await hear(network, mixed)
    assert await network.read_model() == in_order
    assert await answers(network) == told_in_order


async def test_nothing_that_happened_in_the_period_is_left_out(network: Network) -> None:
    """Counted apart from the service: the newest state of each appointment and payment of the stream."""
    stream = Stream(network, seed=11)
    await hear(network, stream.told)
    newest: dict[str, Any] = {}
    for told in stream.told:
        if "appointment_id" in told.changes:
            newest[told.changes["appointment_id"]] = told
    # The period's days in Moscow and Omsk, as instants: three hours apart.
    first = {str(network.moscow): "2026-03-01T21:00", str(network.omsk): "2026-03-01T18:00"}
    last = {str(network.moscow): "2026-03-08T21:00", str(network.omsk): "2026-03-08T18:00"}
    inside = [
        told
        for told in newest.values()
        if first[told.changes["centre_id"]] <= told.changes["starts_at"] < last[told.changes["centre_id"]]
    ]
    assert PERIOD == {"starts_on": "2026-03-02", "ends_on": "2026-03-09"}
    assert 0 < len(inside) < len(newest)
    assert sum(line["total"] for line in await network.items("appointments")) == len(inside)
    whole: dict[str, Any] = {"starts_on": "2026-02-01", "ends_on": "2026-04-01"}
    paid = sum(
        t.changes["amount_minor"] for t in stream.told if t.event_type == "billing.payment-received.v1"
    )
    assert sum(line["paid_minor"] for line in await network.items("revenue", **whole)) == paid
