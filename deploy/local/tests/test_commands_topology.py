"""`clinic topology` against a real broker, in a virtual host of the test's own."""

import json
from pathlib import Path

import httpx
import pytest
from clinic_local.state import write_env
from clinic_shared.testing import Servers

from .conftest import Clinic

TWO = ("--services", "scheduling,patients")


@pytest.fixture
def broker(vhost: Servers, clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> Servers:
    monkeypatch.setenv("CLINIC_AMQP_URL", vhost.amqp_url)
    monkeypatch.setenv("CLINIC_AMQP_MANAGEMENT_URL", vhost.management_url)
    return vhost


def manage(broker: Servers, method: str, path: str, **options: object) -> httpx.Response:
    vhost = broker.amqp_url.rpartition("/")[2]
    with httpx.Client(base_url=broker.management_url, trust_env=False, timeout=60) as management:
        return management.request(method, path.format(vhost=vhost), **options).raise_for_status()  # type: ignore[arg-type]


async def test_what_is_declared_is_verified_and_a_missing_queue_is_found(
    clinic: Clinic, broker: Servers
) -> None:
    missing = await clinic("topology", "verify", *TWO, "--within", 0)
    assert (missing.status, "queue scheduling.patients is missing" in missing.out) == (1, True)
    declared = await clinic("topology", "declare", *TWO)
    assert (declared.status, declared.err) == (0, "")
    assert "5 exchanges" in declared.out
    verified = await clinic("topology", "verify", *TWO)
    assert (verified.status, verified.out.startswith("As it should be at ")) == (0, True)
    manage(broker, "DELETE", "/api/queues/{vhost}/scheduling.patients")
    found = await clinic("topology", "verify", *TWO, "--within", 0, "--json")
    assert found.status == 1
    assert "queue scheduling.patients is missing" in found.document["differences"]
    assert (await clinic("topology", "declare", *TWO, "--json")).document["policies_applied"] is True
    assert (await clinic("topology", "verify", *TWO)).status == 0


async def test_the_brokers_address_may_be_a_file(
    clinic: Clinic, broker: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (
        ("CLINIC_AMQP_URL", broker.amqp_url),
        ("CLINIC_AMQP_MANAGEMENT_URL", broker.management_url),
    ):
        (tmp_path / name.lower()).write_text(f"{value}\n")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLINIC_SECRETS_DIR", str(tmp_path))
    assert (await clinic("topology", "declare", *TWO, "--json")).document["policies_applied"] is True


async def test_printed_definitions_are_all_that_an_operator_needs_to_import(
    clinic: Clinic, broker: Servers
) -> None:
    printed = await clinic("topology", "print", *TWO)
    assert (printed.status, printed.err) == (0, "")
    manage(broker, "POST", "/api/definitions/{vhost}", json=printed.document)
    assert (await clinic("topology", "verify", *TWO)).status == 0


async def test_without_a_management_api_the_policies_are_left_to_the_operator(
    clinic: Clinic, broker: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLINIC_AMQP_MANAGEMENT_URL")
    declared = await clinic("topology", "declare", *TWO)
    assert (declared.status, "clinic topology print" in declared.out) == (0, True)
    assert manage(broker, "GET", "/api/policies/{vhost}").json() == []
    verified = await clinic("topology", "verify", *TWO, "--json")
    assert verified.document == {"differences": [], "only_existence_checked": True}
    manage(broker, "DELETE", "/api/queues/{vhost}/scheduling.patients")
    found = await clinic("topology", "verify", *TWO, "--within", 0)
    assert (found.status, "queue scheduling.patients is missing" in found.out) == (1, True)


async def test_definitions_can_be_printed_where_nothing_runs(clinic: Clinic) -> None:
    printed = await clinic("topology", "print")
    assert {queue["vhost"] for queue in printed.document["queues"]} == {"/"}
    assert len(printed.document["exchanges"]) == 12


async def test_the_broker_that_runs_here_is_the_one_meant(
    clinic: Clinic, vhost: Servers, tmp_path: Path
) -> None:
    write_env(
        tmp_path,
        {
            "CLINIC_PRIVATE_AMQP_URL": vhost.amqp_url,
            "CLINIC_PRIVATE_AMQP_MANAGEMENT_URL": vhost.management_url,
            "CLINIC_PATIENTS_URL": "http://127.0.0.1:1",
        },
    )
    assert "4 exchanges" in (await clinic("topology", "declare")).out
    exchanges = manage(vhost, "GET", "/api/exchanges/{vhost}").json()
    assert {e["name"] for e in exchanges if not e["name"].startswith("amq.")} == {
        "",
        "audit.records",
        "patients.events",
        "platform.events",
        "unrouted",
    }


async def test_queues_of_a_service_that_was_left_out_can_be_pruned(clinic: Clinic, broker: Servers) -> None:
    await clinic("topology", "declare", *TWO)
    (only,) = TWO[1].split(",")[:1]
    pruned = await clinic("topology", "prune", "--services", only, "--yes")
    assert (pruned.status, pruned.err) == (0, "")
    assert "Deleted" in pruned.out
    again = await clinic("topology", "prune", "--services", only, "--yes")
    assert "No queue" in again.out
    assert (await clinic("topology", "verify", "--services", only)).status == 0


async def test_no_broker_is_told_in_words_and_without_its_password(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    dead = "://somebody:hidden-password@127.0.0.1:1"
    for amqp_url, management_url, says in (
        ("", "", "topology: nothing runs here and CLINIC_AMQP_URL isn't set"),
        ("localhost:5672", "", "topology: CLINIC_AMQP_URL isn't an amqp:// URL"),
        (
            "amqp://somebody:hidden-password@127.0.0.1:port/x",
            "",
            "topology: CLINIC_AMQP_URL isn't an amqp:// URL",
        ),
        (f"amqp{dead}/x", "", "topology: 127.0.0.1:1/x can't be used (AMQPConnectionError)"),
        (f"amqp{dead}/x", f"http{dead}", "topology: the management API can't be reached"),
    ):
        monkeypatch.setenv("CLINIC_AMQP_URL", amqp_url)
        monkeypatch.setenv("CLINIC_AMQP_MANAGEMENT_URL", management_url)
        for command in ("declare", "verify"):
            with subtests.test(f"{command} {amqp_url} {management_url}"):
                refused = await clinic("topology", command)
                assert (refused.status, refused.out) == (1, "")
                assert refused.err.splitlines()[0] == says
                assert "hidden-password" not in refused.err


async def test_an_unknown_service_is_refused(clinic: Clinic) -> None:
    refused = await clinic("topology", "print", "--services", "patients,radiology")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.splitlines()[0] == "topology: there is no service radiology"
    assert json.loads((await clinic("topology", "print", "--services", "patients")).out)
