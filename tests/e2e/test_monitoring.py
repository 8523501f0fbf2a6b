"""Prometheus scrapes a running system with our rules, and every query of ours is evaluated on what it finds."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from clinic_local.api_client import Caller
from clinic_local.demo_network import Network
from clinic_local.errors import SetupError
from clinic_local.monitoring import Monitoring
from clinic_local.paths import CHECKOUT
from clinic_local.ports import LOOPBACK, free_port
from clinic_local.testing import System

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900)]

OBSERVABILITY = CHECKOUT / "deploy" / "observability"
BROKER_METRICS = CHECKOUT / "tests" / "observability" / "broker_metrics.json"
LONGEST_WAIT_SECONDS = 120

# Nothing of the kind happens in a system that is well, and nobody counts what never happened.
MAY_BE_EMPTY = {
    "operators: Held",
    "operators: Parked",
    "operators: Refusals by reason",
    "business: Why bookings were refused",
}


@dataclass(frozen=True)
class Prometheus:
    http: httpx.Client

    def ask(self, expression: str) -> list[dict[str, Any]]:
        answer = self.http.get("/api/v1/query", params={"query": expression})
        document = answer.json()
        assert document["status"] == "success", f"{expression}: {document.get('error')}"
        return list(document["data"]["result"])


@contextmanager
def _running(programs: Monitoring, configuration: dict[str, Any], folder: Path) -> Iterator[Prometheus]:
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"{LOOPBACK}:{free_port()}"
    log = folder / "prometheus.log"
    arguments = (
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [programs.prometheus, *arguments], env=programs.environment, stdout=output, stderr=output
        )
    try:
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=60) as http:
            deadline = time.monotonic() + LONGEST_WAIT_SECONDS
            while not _is_ready(http):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.1)
            yield Prometheus(http)
    finally:
        process.terminate()
        process.wait(60)


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def _configuration(system: System) -> dict[str, Any]:
    """Return the configuration that is shipped, with this system's addresses in it."""
    shipped = yaml.safe_load((OBSERVABILITY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    services = {
        name.removeprefix("CLINIC_").removesuffix("_URL").lower().replace("_", "-"): urlsplit(url).netloc
        for name, url in system.addresses.items()
        if re.fullmatch(r"CLINIC_[A-Z_]+_URL", name)
        and url.startswith("http://127")
        and "PRIVATE" not in name
    }
    services.pop("fakes")
    services["gateway"] = urlsplit(system.url).netloc
    broker = urlsplit(system.addresses["CLINIC_PRIVATE_AMQP_METRICS_URL"]).netloc
    for job in shipped["scrape_configs"]:
        job["static_configs"] = [{"targets": [broker]}]
        if job["job_name"] == "polyclinic":
            job["static_configs"] = [
                {"targets": [address], "labels": {"service": name, "role": "all"}}
                for name, address in services.items()
            ]
    assert len(services) == 10
    # Two scrapes make a rate, and nobody wants to wait for four times fifteen seconds. Each may take as long.
    shipped["global"] = {"scrape_interval": "3s", "evaluation_interval": "1s"}
    shipped["rule_files"] = [str(OBSERVABILITY / "prometheus" / "rules" / "*.yml")]
    return dict(shipped)


@pytest.fixture(scope="module")
def prometheus(
    system: System,
    journey: subprocess.CompletedProcess[str],  # so that there is something to see
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    try:
        programs = Monitoring.unpacked()
    except SetupError as error:
        pytest.skip(f"no Prometheus on this machine: {error.report()}")
    folder = tmp_path_factory.mktemp("prometheus")
    with _running(programs, _configuration(system), folder) as started:
        yield started


def _rules() -> list[tuple[str, str]]:
    return [
        (rule.get("alert") or rule["record"], rule["expr"])
        for file in sorted((OBSERVABILITY / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def _panels() -> list[tuple[str, str]]:
    return [
        (f"{file.stem}: {panel['title']}", target["expr"].replace("$__rate_interval", "1m"))
        for file in sorted((OBSERVABILITY / "grafana" / "dashboards").glob("*.json"))
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", ())
    ]


def test_everything_is_scraped(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        up = prometheus.ask("up")
        down = [one["metric"] for one in up if one["value"][1] != "1"]
        if len(up) == 12 and not down:
            return
        assert time.monotonic() < deadline, f"{len(up)} targets, down: {down}"
        time.sleep(0.5)


def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    wanted = [(title, query) for title, query in _panels() if title not in MAY_BE_EMPTY]
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        empty = [(title, query) for title, query in wanted if not prometheus.ask(query)]
        if not empty:
            return
        assert time.monotonic() < deadline, empty
        time.sleep(1)


def test_every_query_can_be_evaluated_and_no_rule_fails(prometheus: Prometheus) -> None:
    for _, query in (*_rules(), *_panels()):
        prometheus.ask(query)
    groups = prometheus.http.get("/api/v1/rules").json()["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == {name for name, _ in _rules()}
    assert [r["lastError"] for group in groups for r in group["rules"] if r.get("lastError")] == []


def test_nothing_is_missing_between_publishers_and_consumers(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        found = prometheus.ask("clinic:events_missing:count")
        # Publishers and consumers don't all count at the moment when another hour has settled.
        missing = [one for one in found if one["value"][1] != "0"]
        if len(found) > 100 and not missing:  # one for every subscription to a type
            return
        assert time.monotonic() < deadline, f"{len(found)} subscriptions, missing: {missing}"
        time.sleep(1)


def test_the_counts_of_both_ends_of_every_edge_agree_once_all_is_quiet(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        # Before the system began to count nothing was published, so all that ever was is counted here.
        kept = "sum(clinic_held_messages) + sum(clinic_parked_messages)"
        outstanding = prometheus.ask("sum(clinic:events_outstanding:count)")
        if outstanding and outstanding[0]["value"][1] == prometheus.ask(kept)[0]["value"][1]:
            break
        assert time.monotonic() < deadline, prometheus.ask("clinic:events_outstanding:count != 0")
        time.sleep(1)
    assert float(prometheus.ask("sum(clinic_events_applied_total)")[0]["value"][1]) > 100


def test_the_brokers_metrics_that_rules_rely_on_exist(system: System) -> None:
    url = system.addresses["CLINIC_PRIVATE_AMQP_METRICS_URL"]
    detailed = {"family": ["queue_coarse_metrics", "queue_consumer_count"]}
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        text = http.get("/metrics").text + http.get("/metrics/detailed", params=detailed).text
    exposed: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(rabbitmq_\w+)(?:\{(.*)\})? ", text, flags=re.MULTILINE):
        exposed.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    for name, labels in json.loads(BROKER_METRICS.read_text(encoding="utf-8")).items():
        assert set(labels) <= exposed[name], name


def test_the_event_flow_shows_all_services_and_nothing_unaccounted(
    system: System, network: Network, as_person: Callable[[str], Caller]
) -> None:
    person = {"centre_id": network.centre_id, "name": {"family": "Течениева", "given": "Проба"}}
    # Rates are of the last minutes, and it may be longer since anything happened.
    as_person("registrar").post("/v1/patients", {**person, "birth_on": "1992-03-04"})
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        shown = system.clinic("flow", "--json", "--all")
        if shown.returncode == 0 and _flows_everywhere(json.loads(shown.stdout)):
            return
        assert time.monotonic() < deadline, shown.stdout + shown.stderr


def _flows_everywhere(found: dict[str, Any]) -> bool:
    return (
        [node["state"] for node in found["services"]] == ["running"] * 9
        and found["unreachable"] == []
        and any(edge["per_second"] > 0 for edge in found["subscriptions"])
    )
