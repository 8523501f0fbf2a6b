"""Each report's figures on a few events whose answer is known."""

from typing import Any

from clinic_shared import contracts
from clinic_shared.ids import uuid7

from .conftest import Network


async def test_utilisation_adds_up_the_time_by_day(network: Network) -> None:
    times = {
        "appointment-completed": ("2026-03-03T07:00:00Z", "2026-03-03T08:00:00Z"),
        "appointment-missed": ("2026-03-03T08:00:00Z", "2026-03-03T08:30:00Z"),
        "appointment-booked": ("2026-03-04T07:00:00Z", "2026-03-04T07:30:00Z"),
        "appointment-cancelled": ("2026-03-04T09:00:00Z", "2026-03-04T10:00:00Z"),
    }
    for event, (starts_at, ends_at) in times.items():
        await network.appointment(event, network.dietetics, starts_at=starts_at, ends_at=ends_at)
    for departments in ([network.dietetics], [network.dietetics, network.dermatology]):
        await network.reporting.deliver_example(
            "identity.staff-member-added.v1",
            staff_id=str(uuid7()),
            department_ids=[str(d) for d in departments],
        )
    lines = {line["name"]: line for line in await network.items("utilisation")}
    dietetics = lines["Dietetics"]
    assert (dietetics["booked_seconds"], dietetics["completed_seconds"]) == (7200, 3600)
    assert (dietetics["missed_seconds"], dietetics["used_rate"]) == (1800, 0.5)
    assert [(day["on"], day["booked_seconds"]) for day in dietetics["by_day"]] == [
        ("2026-03-03", 5400),
        ("2026-03-04", 1800),
    ]
    assert (dietetics["practitioner_posts"], lines["Dermatology"]["practitioner_posts"]) == (2, 1)


async def test_those_who_left_hold_no_post(network: Network) -> None:
    left: dict[str, Any] = {"staff_id": str(uuid7()), "department_ids": [str(network.dietetics)]}
    await network.reporting.deliver_example("identity.staff-member-added.v1", **left)
    await network.reporting.deliver_example(
        "identity.staff-member-deactivated.v1", version=2, active=False, **left
    )
    assert await network.items("utilisation") == []


def _stages(created_at: str, **reached: str) -> dict[str, Any]:
    names = ("accepted", "declined", "booked", "seen", "reported", "closed")
    return {"created_at": created_at, **{f"{name}_at": reached.get(name) for name in names}}


async def _refer(network: Network, event: str, **stages: Any) -> None:
    await network.reporting.deliver_example(
        f"referrals.referral-{event}.v1",
        referral_id=str(uuid7()),
        from_centre_id=str(network.moscow),
        from_department_id=str(network.dermatology),
        to_centre_id=str(network.omsk),
        to_department_id=str(network.omsk_dentistry),
        **stages,
    )


async def test_referrals_tell_each_edge_s_conversion_and_times(network: Network) -> None:
    seen = {"accepted": "2026-03-03T10:01:00Z", "booked": "2026-03-03T10:02:00Z"}
    await _refer(network, "seen", **_stages("2026-03-03T10:00:00Z", **seen, seen="2026-03-03T11:00:00Z"))
    await _refer(network, "accepted", **_stages("2026-03-03T10:00:00Z", accepted="2026-03-03T10:03:00Z"))
    await _refer(network, "declined", **_stages("2026-03-03T10:00:00Z", declined="2026-03-03T10:05:00Z"))
    [edge] = await network.items("referrals")
    assert (edge["from"]["name"], edge["to"]["name"]) == ("Dermatology", "Dentistry")
    assert [edge[name] for name in ("created", "accepted", "declined", "booked", "seen")] == [3, 2, 1, 1, 1]
    assert edge["conversion_to_visit"] == 0.3333
    assert (edge["median_seconds"]["accepted"], edge["median_seconds"]["seen"]) == (60, 3600)
    assert edge["median_seconds"]["closed"] is None
    [between] = await network.items("referrals", level="centre")
    assert (between["from"]["name"], between["to"]["name"], between["created"]) == ("Moscow", "Omsk", 3)


async def test_either_end_of_a_referral_reads_of_it_and_nobody_else(network: Network) -> None:
    await _refer(network, "created", **_stages("2026-03-03T10:00:00Z"))

    async def seen_by(**places: Any) -> int:
        manager = network.reporting.principal("management", network=False, **places)
        return len(await network.items("referrals", manager))

    assert await seen_by(centre_ids=frozenset({network.moscow})) == 1
    assert await seen_by(centre_ids=frozenset({network.omsk})) == 1
    assert await seen_by(department_ids=frozenset({network.dermatology})) == 1
    assert await seen_by(department_ids=frozenset({network.omsk_dentistry})) == 1
    assert await seen_by(department_ids=frozenset({network.dietetics})) == 0
    assert len(await network.items("referrals", centre_id=network.omsk)) == 1


async def _result(network: Network, minutes: int, **changes: Any) -> None:
    """Order at 08:00, receive so many minutes later, file ten seconds after that."""
    here: dict[str, Any] = {"centre_id": str(network.moscow), "department_id": str(network.dermatology)}
    order_id, result_id = str(uuid7()), str(uuid7())
    deliver = network.reporting.deliver_example
    await deliver(
        "lab-integration.lab-order-placed.v1",
        lab_order_id=order_id,
        placed_at="2026-03-04T08:00:00Z",
        **here,
    )
    result = {"result_id": result_id, "lab_order_id": order_id, **here} | changes
    received_at = f"2026-03-04T08:{minutes:02}:00Z"
    await deliver("lab-integration.lab-result-received.v1", received_at=received_at, **result)
    only_results = {"critical_count", "collected_at", "reported_at", "report"}
    filed = {name: value for name, value in result.items() if name not in only_results}
    await deliver("patients.lab-result-filed.v1", filed_at=f"2026-03-04T08:{minutes:02}:10Z", **filed)


async def test_laboratory_tells_turnaround_corrections_and_criticals(network: Network) -> None:
    for minutes in (10, 20, 30):
        await _result(network, minutes, critical_count=int(minutes == 30))
    [line] = await network.items("laboratory")
    assert (line["orders"], line["results"], line["critical"], line["corrected"]) == (3, 3, 1, 0)
    assert line["turnaround"] == {
        "placed_to_received": {"median_seconds": 1200, "p90_seconds": 1800},
        "received_to_filed": {"median_seconds": 10, "p90_seconds": 10},
        "placed_to_filed": {"median_seconds": 1210, "p90_seconds": 1810},
    }
    [centre] = await network.items("laboratory", level="centre")
    assert centre["turnaround"] == line["turnaround"]


def _of(code: str) -> dict[str, Any]:
    return {"report": {"code": code, "system": None, "display": None}}


async def test_turnaround_is_told_by_laboratory_test_and_stage(network: Network) -> None:
    times = {"collected_at": "2026-03-04T08:02:00Z", "reported_at": "2026-03-04T08:05:00Z"}
    for minutes in (10, 20, 20, 20, 20, 30):
        await _result(network, minutes, **times)
    for _ in range(5):
        await _result(network, 10, **_of("X"), lab_order_id=None)
    frequent, other = await network.items("laboratory/turnaround")
    assert (frequent["test_code"], frequent["results"]) == ("58410-2", 6)
    assert frequent["partner_id"] == other["partner_id"]
    assert {name: spread["median_seconds"] for name, spread in frequent["stages"].items()} == {
        "placed_to_collected": 120,
        "collected_to_reported": 180,
        "reported_to_received": 900,
        "received_to_filed": 10,
        "placed_to_filed": 1210,
    }
    assert (other["test_code"], other["stages"]["placed_to_filed"]["median_seconds"]) == ("X", None)
    assert (frequent["suppressed"], other["suppressed"]) == (False, False)


async def test_a_rare_test_is_neither_named_nor_counted_nor_computed(network: Network) -> None:
    for count, code in ((7, "frequent"), (5, "less-frequent"), (1, "rare")):
        for _ in range(count):
            await _result(network, 10, **_of(code))
    frequent, hidden = await network.items("laboratory/turnaround")
    assert (frequent["test_code"], frequent["results"]) == ("frequent", 7)
    assert (hidden["test_code"], hidden["partner_id"], hidden["suppressed"]) == (None, None, True)
    assert hidden["results"] == 6, "what the total leaves over is of two tests"
    assert {spread["median_seconds"] for spread in hidden["stages"].values()} == {None}


async def test_of_too_few_results_in_all_not_even_the_number_is_told(network: Network) -> None:
    for _ in range(4):
        await _result(network, 10, **_of("rare"))
    [hidden] = await network.items("laboratory/turnaround")
    assert (hidden["test_code"], hidden["results"], hidden["suppressed"]) == (None, None, True)


async def test_a_result_without_an_order_is_counted_for_the_network_only(network: Network) -> None:
    nowhere = {"lab_order_id": None, "centre_id": None, "department_id": None}
    await _result(network, 10, **nowhere)
    lines = {line["name"]: line["results"] for line in await network.items("laboratory")}
    assert lines == {"Dermatology": 0, None: 1}
    [centre] = await network.items("laboratory", centre_id=network.moscow)
    assert (centre["orders"], centre["results"]) == (1, 0)


async def test_revenue_is_told_by_currency_and_day_of_the_movement(network: Network) -> None:
    here: dict[str, Any] = {"centre_id": str(network.moscow), "department_id": str(network.dermatology)}
    deliver = network.reporting.deliver_example
    for currency, amount in (("RUB", 250_000), ("KZT", 100)):
        money: dict[str, Any] = {"currency": currency, **here}
        await deliver(
            "billing.invoice-issued.v1",
            invoice_id=str(uuid7()),
            total_minor=amount,
            issued_at="2026-03-01T09:00:00Z",
            **money,
        )
        await deliver(
            "billing.payment-received.v1",
            payment_id=str(uuid7()),
            amount_minor=amount,
            received_at="2026-03-03T09:00:00Z",
            **money,
        )
    await deliver(
        "billing.payment-refunded.v1",
        refund_id=str(uuid7()),
        amount_minor=50_000,
        refunded_at="2026-03-04T09:00:00Z",
        currency="RUB",
        **here,
    )
    lines = {line["currency"]: line for line in await network.items("revenue")}
    names = ("invoiced_minor", "paid_minor", "refunded_minor", "net_minor")
    assert [lines["RUB"][name] for name in names] == [0, 250_000, 50_000, 200_000]
    assert [lines["KZT"][name] for name in names] == [0, 100, 0, 100]
    before = await network.items("revenue", starts_on="2026-03-01", ends_on="2026-03-02")
    assert {line["currency"]: line["invoiced_minor"] for line in before} == {"RUB": 250_000, "KZT": 100}


async def test_checkpoints_are_witnessed_once_and_a_fork_is_shown(network: Network) -> None:
    event_type = "audit.audit-checkpoint-signed.v1"
    seen = contracts.examples(event_type)[0]["data"]
    deliver = network.reporting.deliver_example
    await deliver(event_type)
    await deliver(event_type)
    privacy_officer = network.reporting.principal("privacy-officer")
    headers = network.reporting.headers(privacy_officer)
    path = "/v1/reports/witnesses"
    answer = (await network.reporting.http.get(path, headers=headers)).json()
    assert [item["root_hash"] for item in answer["items"]] == [seen["root_hash"]]
    assert answer["forks"] == []
    await deliver(event_type, root_hash="f" * 64)
    first = (await network.reporting.http.get(path, headers=headers, params={"limit": 1})).json()
    rest = await network.reporting.http.get(
        path, headers=headers, params={"limit": 1, "cursor": first["next_cursor"]}
    )
    [newer], [older] = first["items"], rest.json()["items"]
    assert {newer["root_hash"], older["root_hash"]} == {seen["root_hash"], "f" * 64}
    [fork] = first["forks"]
    assert (fork["tree_size"], set(fork["root_hashes"])) == (seen["tree_size"], {seen["root_hash"], "f" * 64})


async def test_management_does_not_read_witnesses(network: Network) -> None:
    headers = network.reporting.headers(network.reporting.principal("management"))
    assert (await network.reporting.http.get("/v1/reports/witnesses", headers=headers)).status_code == 403
