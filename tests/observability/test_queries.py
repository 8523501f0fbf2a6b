"""No rule and no panel asks for a metric or label that nothing exposes: it would be silent for ever."""

import json
from pathlib import Path

import pytest
from clinic_shared import contracts

from . import queries
from .queries import TARGET_LABELS, Names, Query, names_in
from .registered import samples

BROKER = json.loads(Path(__file__).with_name("broker_metrics.json").read_text(encoding="utf-8"))
OF_PROMETHEUS = {"up": frozenset[str](), "ALERTS": frozenset(("alertname", "alertstate", "severity"))}
EVERY = [*queries.of_rules(), *queries.of_dashboards()]


@pytest.fixture(scope="module")
def exposed() -> dict[str, frozenset[str]]:
    of_broker = {name: frozenset(labels) for name, labels in BROKER.items()}
    return {**samples(), **of_broker, **OF_PROMETHEUS}


def test_names_are_read_off_a_query() -> None:
    found = names_in(
        Query(
            "example",
            'sum by (a, b) (rate(clinic_x_total{c="by (d)", e!~"f|g"}[5m])) / on (a) group_left (h) clinic_y '
            'unless on (a) label_replace(up{job="z"} offset 5m, "i", "$1", "a", "(.*)") > 1e3',
        )
    )
    assert found == Names(
        metrics={"clinic_x_total": {"c", "e"}, "clinic_y": set(), "up": {"job"}},
        grouped_by={"a", "b", "h"},
        made={"i"},
    )


@pytest.mark.parametrize("query", EVERY, ids=lambda query: query.place)
def test_every_metric_and_label_of_a_query_is_exposed(
    query: Query, exposed: dict[str, frozenset[str]]
) -> None:
    found = names_in(query)
    assert found.metrics
    recorded = queries.recorded()
    unknown = {name for name in found.metrics if name not in exposed and name not in recorded}
    assert not unknown
    for name, matched in found.metrics.items():
        if name not in recorded:
            assert matched <= exposed[name] | TARGET_LABELS, name
    if not recorded & found.metrics.keys():
        known = frozenset().union(*(exposed[name] for name in found.metrics))
        assert found.grouped_by <= known | TARGET_LABELS | found.made


def test_the_event_types_that_are_asked_for_are_published() -> None:
    types = contracts.load().events
    asked = {
        part
        for query in EVERY
        for part in query.expression.split('"')
        if part.endswith(".v1") and "type" in query.expression
    }
    assert asked
    assert asked <= types.keys()


def test_labels_that_could_name_a_person_are_nowhere(exposed: dict[str, frozenset[str]]) -> None:
    forbidden = {"patient", "patient_id", "subject", "login", "phone", "email", "name", "user", "path", "url"}
    for name, labels in exposed.items():
        if name.startswith("clinic_"):
            assert not labels & forbidden, name


def test_every_service_is_scraped_in_both_roles() -> None:
    text = (queries.OBSERVABILITY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    for service in contracts.load().services:
        for role in ("api", "worker"):
            assert f'["{service}-{role}:8080"]' in text
            assert f"{{service: {service}, role: {role}}}" in text


def test_every_panel_names_the_data_source_that_is_provisioned() -> None:
    provisioned = (queries.OBSERVABILITY / "grafana/provisioning/datasources/prometheus.yml").read_text(
        encoding="utf-8"
    )
    for file in queries.DASHBOARDS.glob("*.json"):
        board = json.loads(file.read_text(encoding="utf-8"))
        used = {p["datasource"]["uid"] for p in board["panels"] if "datasource" in p}
        assert used == {"prometheus"}
        assert "uid: prometheus\n" in provisioned
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
