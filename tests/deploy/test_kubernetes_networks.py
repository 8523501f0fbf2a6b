"""The network enforces the architecture: services don't reach each other, and nobody another's database."""

import copy

import pytest
from clinic_shared.contracts import load

from .manifests import K8S, of_kind, one, rendered
from .networks import edges, outside, pods

SERVICES = tuple(load().services)
PRODUCTION = "overlays/production"
DATABASE, AMQP, MANAGEMENT = 5432, {5671, 5672}, 15672
PROCESSES = ("Deployment/{}-api", "Deployment/{}-worker", "Job/{}-migration")
BROKER = "RabbitmqCluster/rabbitmq"
OVERLAYS = sorted(f"overlays/{folder.name}" for folder in K8S.glob("overlays/*"))


def of(service: str) -> set[str]:
    return {process.format(service) for process in PROCESSES}


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_is_forbidden_that_is_not_allowed(name):
    assert one(rendered(name), "NetworkPolicy", "default-deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_between_services_there_is_nothing_but_reading_token_keys(name):
    processes = {process for service in SERVICES for process in of(service)}
    found = {(source, target) for source, target, _ in edges(rendered(name)) if {source, target} <= processes}
    assert found == {(f"Deployment/{service}-api", "Deployment/identity-api") for service in SERVICES}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_gateway_reaches_every_api_and_no_worker(name):
    found = {
        target
        for source, target, port in edges(rendered(name))
        if source == "Deployment/gateway" and port == "http"
    }
    assert found == {f"Deployment/{service}-api" for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reaches_its_own_database_and_no_other(service):
    found = {
        (source, target)
        for source, target, port in edges(rendered(PRODUCTION))
        if port == DATABASE and source in of(service)
    }
    assert found == {(process, f"Cluster/{service}-database") for process in of(service)}


def test_the_instances_of_a_database_reach_each_other():
    found = edges(rendered(PRODUCTION))
    assert {(f"Cluster/{s}-database", f"Cluster/{s}-database", DATABASE) for s in SERVICES} <= found


@pytest.mark.parametrize("name", OVERLAYS)
def test_everybody_but_migrations_reaches_the_broker(name):
    manifests = rendered(name)
    broker = BROKER if of_kind(manifests, "RabbitmqCluster") else "StatefulSet/rabbitmq"
    found = {source for source, target, port in edges(manifests) if target == broker and port in AMQP}
    expected = {name for name in pods(manifests) if name.startswith("Deployment/")} | {"Job/topology"}
    assert found == expected


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_workers_that_call_vendors_and_laboratories_reach_the_world(name):
    vendors = {source for source, _ in outside(rendered(name)) if source.startswith(("Deployment/", "Job/"))}
    services = ("billing", "lab-integration", "notifications")
    assert vendors == {f"Deployment/{service}-worker" for service in services}


def test_an_edge_between_services_is_found():
    manifests = copy.deepcopy(rendered("overlays/dev"))
    one(manifests, "NetworkPolicy", "apis-to-token-keys")["spec"]["egress"][0]["to"][0]["podSelector"].pop(
        "matchLabels"
    )
    one(manifests, "NetworkPolicy", "token-keys-from-apis")["spec"]["podSelector"].pop("matchLabels")
    assert ("Deployment/billing-api", "Deployment/patients-api", "http") in edges(manifests)
