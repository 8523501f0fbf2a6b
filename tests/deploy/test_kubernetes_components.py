"""What operators are told is what the contracts and the code know: databases, users, queues, rules, paths."""

import re
from itertools import pairwise

import pytest
import yaml
from clinic_gateway.pages import Pages
from clinic_gateway.routes import ROUTES
from clinic_local.kubernetes import RULES, files
from clinic_shared.broker_access import accesses
from clinic_shared.contracts import load
from clinic_shared.topology import Topology

from .manifests import COMPONENT, labels, of_kind, one, pod, rendered, title, workloads

SERVICES = tuple(load().services)
PRODUCTION = rendered("overlays/production")
TOPOLOGY = Topology.of()
QUEUES = {queue.name for queue in TOPOLOGY.queues}
# The metrics are for Prometheus, and probes for the cluster.
NOT_FOR_THE_WORLD = {"/metrics", "/healthz", "/readyz", "/version"}


def test_generated_files_are_what_the_code_says_now():
    stale = [
        path.name for path, text in files() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: .venv/bin/python -m clinic_local.kubernetes"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_database_of_its_own(service):
    spec = one(PRODUCTION, "Cluster", f"{service}-database")["spec"]
    name = f"clinic_{service.replace('-', '_')}"
    assert (spec["bootstrap"]["initdb"]["database"], spec["bootstrap"]["initdb"]["owner"]) == (name, name)


def test_every_policy_of_the_topology_is_applied():
    applied = {
        policy["spec"]["name"]: (
            policy["spec"]["pattern"],
            policy["spec"]["applyTo"],
            policy["spec"]["definition"],
        )
        for policy in of_kind(PRODUCTION, "Policy")
    }
    assert applied == {p.name: (p.pattern, p.apply_to, dict(p.definition)) for p in TOPOLOGY.policies}


def test_every_process_has_a_broker_user_with_its_permissions():
    for access in accesses(SERVICES):
        permission = one(PRODUCTION, "Permission", f"{access.user}-broker")["spec"]
        assert permission["permissions"] == {
            "configure": access.configure,
            "write": access.write,
            "read": access.read,
        }
        topics = [
            (topic["spec"]["permissions"]["exchange"], topic["spec"]["permissions"]["write"])
            for topic in of_kind(PRODUCTION, "TopicPermission")
            if topic["spec"]["userReference"] == permission["userReference"]
        ]
        assert sorted(topics) == sorted(access.topics)
        user = one(PRODUCTION, "User", permission["userReference"]["name"])["spec"]
        assert user["tags"] == list(access.tags)
        imported = one(PRODUCTION, "ExternalSecret", user["importCredentialsSecret"]["name"])
        assert imported["spec"]["target"]["template"]["data"]["username"] == access.user


@pytest.mark.parametrize("service", SERVICES)
def test_a_worker_scales_with_its_own_queues(service):
    (trigger,) = one(PRODUCTION, "ScaledObject", f"{service}-worker")["spec"]["triggers"]
    pattern = re.compile(trigger["metadata"]["queueName"])
    own = {queue for queue in QUEUES if queue.startswith(f"{service}.")}
    # What is set apart waits for a person and not for a worker.
    assert {queue for queue in QUEUES if pattern.search(queue)} == own - {f"{service}.parking"}
    assert trigger["metadata"]["vhostName"] == one(PRODUCTION, "Vhost", "clinic")["spec"]["name"]


def test_what_is_scaled_exists_and_nothing_falls_to_zero():
    deployments = {deployment["metadata"]["name"] for deployment in of_kind(PRODUCTION, "Deployment")}
    scaled = of_kind(PRODUCTION, "ScaledObject")
    assert {one["spec"]["scaleTargetRef"]["name"] for one in scaled} == deployments
    assert all(one["spec"]["minReplicaCount"] > 0 for one in scaled)


def test_every_secret_comes_from_the_store():
    made = {secret["metadata"]["name"] for secret in of_kind(PRODUCTION, "ExternalSecret")}
    mounted = {
        volume["secret"]["secretName"]
        for workload in workloads(PRODUCTION)
        for volume in pod(workload)["volumes"]
        if "secret" in volume
    }
    owners = {one["spec"]["bootstrap"]["initdb"]["secret"]["name"] for one in of_kind(PRODUCTION, "Cluster")}
    users = {one["spec"]["importCredentialsSecret"]["name"] for one in of_kind(PRODUCTION, "User")}
    keda = {one["spec"]["secretTargetRef"][0]["name"] for one in of_kind(PRODUCTION, "TriggerAuthentication")}
    assert made == mounted | owners | users | keda


def test_every_public_path_passes_the_edge_and_no_other():
    route = one(PRODUCTION, "HTTPRoute", "gateway")["spec"]
    open_paths = [match["path"] for rule in route["rules"] for match in rule["matches"]]

    def passes(path: str) -> bool:
        return any(
            path == one["value"] or (one["type"] == "PathPrefix" and path.startswith(f"{one['value']}/"))
            for one in open_paths
        )

    own = [route.path for route in Pages.routes(Pages.__new__(Pages))]
    public = {*(route.prefix for route in ROUTES), *own, "/v1/ops/ledger", "/v1/stream"}
    assert [path for path in public if not passes(path)] == []
    assert [path for path in NOT_FOR_THE_WORLD if passes(path)] == []


def test_every_rule_reaches_the_operator():
    files_ = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in RULES.glob("*.yml")]
    known = {group["name"] for document in files_ for group in document["groups"]}
    (rules,) = of_kind(PRODUCTION, "PrometheusRule")
    assert {group["name"] for group in rules["spec"]["groups"]} == known


def test_every_monitor_finds_a_port():
    ports = {
        port["name"]
        for workload in workloads(PRODUCTION)
        for container in pod(workload)["containers"]
        for port in container.get("ports", [])
    }
    of_operators = {"prometheus", "metrics"}
    for monitor in of_kind(PRODUCTION, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in ports | of_operators, title(monitor)


def test_argo_cd_brings_everything_in_the_order_of_an_upgrade():
    """What a wave needs is in an earlier one: each waits until the one before is healthy."""
    waves: dict[str, set[int]] = {}
    for manifest in PRODUCTION:
        wave = int(manifest["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))
        role = (
            manifest["metadata"].get("labels", {}).get(COMPONENT)
            if manifest in workloads(PRODUCTION)
            else None
        )
        waves.setdefault(role or manifest["kind"], set()).add(wave)
    ordered = [
        "ExternalSecret",
        "Cluster",
        "migration",
        "topology",
        "worker",
        "api",
        "gateway",
        "ScaledObject",
    ]
    steps = [waves.pop(name) for name in ordered]
    assert all(max(earlier) < min(later) for earlier, later in pairwise(steps))
    assert set().union(*waves.values()) == {0}, "the rest comes with the servers"


def test_everybody_who_leaves_traces_is_told_of_the_collector_and_reaches_it():
    policy = one(PRODUCTION, "NetworkPolicy", "traces")["spec"]
    [rule] = policy["egress"]
    namespace = rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    address = f"http://opentelemetry-collector.{namespace}:{rule['ports'][0]['port']}"
    told = [map_["data"].get("OTEL_EXPORTER_OTLP_ENDPOINT") for map_ in of_kind(PRODUCTION, "ConfigMap")]
    assert address in told
    leaving = {
        labels(deployment)["app.kubernetes.io/component"] for deployment in of_kind(PRODUCTION, "Deployment")
    }
    assert leaving == set(policy["podSelector"]["matchExpressions"][0]["values"])
