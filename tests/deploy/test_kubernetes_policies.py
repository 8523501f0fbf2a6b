"""Every workload is as safe, bounded, probed and replaceable as it should be, and the checks would notice."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from . import policies
from .manifests import COMPONENT, K8S, labels, of_kind, one, pod, rendered, selects, title, workloads

OVERLAYS = sorted(f"overlays/{folder.name}" for folder in K8S.glob("overlays/*"))


def complaints(name: str, check: policies.Check) -> list[str]:
    manifests = rendered(name)
    return [f"{title(one)} {text}" for one in workloads(manifests) for text in check(one, manifests)]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("check", policies.CHECKS, ids=lambda check: check.__name__)
def test_every_workload(name, check):
    assert complaints(name, check) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_stands_in_the_open(name):
    assert policies.secrets_in_the_open(rendered(name)) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_takes_restricted_pods_only(name):
    (namespace,) = of_kind(rendered(name), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget"])
def test_every_selector_finds_pods(name, kind):
    manifests = rendered(name)
    broker = {COMPONENT: "rabbitmq", "app.kubernetes.io/name": "rabbitmq"}  # the operator's pods
    known = [*map(labels, workloads(manifests)), broker]
    for manifest in of_kind(manifests, kind):
        selector = manifest["spec"]["selector"]
        selector = {"matchLabels": selector} if kind == "Service" else selector
        assert any(selects(selector, given) for given in known), title(manifest)


def test_production_tolerates_the_loss_of_a_node():
    manifests = rendered("overlays/production")
    scaled = {s["spec"]["scaleTargetRef"]["name"]: s["spec"] for s in of_kind(manifests, "ScaledObject")}
    for deployment in of_kind(manifests, "Deployment"):
        assert scaled[deployment["metadata"]["name"]]["minReplicaCount"] >= 2
        assert "replicas" not in deployment["spec"], "two would decide about the number of pods"
    assert one(manifests, "RabbitmqCluster", "rabbitmq")["spec"]["replicas"] == 3
    assert {cluster["spec"]["instances"] for cluster in of_kind(manifests, "Cluster")} == {3}


Edit = Callable[[Any], object]

MISTAKES: dict[str, tuple[policies.Check, Edit]] = {
    "root": (policies.runs_without_privileges, lambda w: pod(w)["securityContext"].update(runAsUser=0)),
    "writable": (
        policies.runs_without_privileges,
        lambda w: pod(w)["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    "token": (policies.has_an_account_without_token, lambda w: pod(w).pop("automountServiceAccountToken")),
    "account": (policies.has_an_account_without_token, lambda w: pod(w).update(serviceAccountName="nobody")),
    "probe": (policies.is_probed, lambda w: pod(w)["containers"][0].pop("livenessProbe")),
    "restarts": (
        policies.is_probed,
        lambda w: pod(w)["containers"][0]["livenessProbe"]["httpGet"].update(path="/readyz"),
    ),
    "memory": (policies.is_bounded, lambda w: pod(w)["containers"][0]["resources"].pop("limits")),
    "disk": (policies.is_bounded, lambda w: pod(w)["volumes"][1].update(emptyDir={})),
    "latest": (
        policies.has_a_pinned_image,
        lambda w: pod(w)["containers"][0].update(image="a.b:5000/clinic"),
    ),
    "env": (
        policies.keeps_secrets_out_of_the_environment,
        lambda w: pod(w)["containers"][0]["env"].append({"name": "X", "valueFrom": {"secretKeyRef": {}}}),
    ),
    "gap": (policies.is_replaced_without_a_gap, lambda w: w["spec"]["strategy"].pop("rollingUpdate")),
    "grace": (policies.ends_before_it_is_killed, lambda w: pod(w).update(terminationGracePeriodSeconds=25)),
    "one node": (policies.spreads_over_nodes, lambda w: pod(w)["topologySpreadConstraints"].pop()),
    "selector": (
        policies.selects_its_own_pods,
        lambda w: w["spec"]["selector"].update(matchLabels={"a": "b"}),
    ),
    "greedy": (policies.selects_its_own_pods, lambda w: w["spec"].update(selector={"matchLabels": {}})),
    "budget": (policies.allows_draining, lambda w: labels(w).update({COMPONENT: "else"})),
    "map": (
        policies.refers_to_what_is_there,
        lambda w: pod(w)["containers"][0]["envFrom"][0]["configMapRef"].update(name="gone"),
    ),
    "secret": (
        policies.refers_to_what_is_there,
        lambda w: pod(w)["volumes"][0]["secret"].update(secretName="else"),
    ),
    "port": (
        policies.refers_to_what_is_there,
        lambda w: pod(w)["containers"][0]["readinessProbe"]["httpGet"].update(port="web"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake):
    check, plant = MISTAKES[mistake]
    manifests = rendered("overlays/production")
    deployment = copy.deepcopy(one(manifests, "Deployment", "scheduling-api"))
    assert list(check(deployment, manifests)) == []
    plant(deployment)
    assert list(check(deployment, manifests)) != []


def test_a_budget_that_blocks_draining_is_found():
    manifests = copy.deepcopy(rendered("overlays/production"))
    one(manifests, "PodDisruptionBudget", "scheduling-api")["spec"].update(maxUnavailable=0)
    deployment = one(manifests, "Deployment", "scheduling-api")
    assert list(policies.allows_draining(deployment, manifests)) != []


@pytest.mark.parametrize(
    ("check", "plant"),
    [
        (policies.refers_to_what_is_there, lambda claim: claim["metadata"].update(name="else")),
        (
            policies.finds_its_disk_on_every_node,
            lambda claim: claim["spec"].update(accessModes=["ReadWriteOnce"]),
        ),
    ],
)
def test_a_volume_that_a_worker_could_not_mount_is_found(check, plant):
    manifests = copy.deepcopy(rendered("overlays/production"))
    worker = one(manifests, "Deployment", "audit-worker")
    assert list(check(worker, manifests)) == []
    plant(one(manifests, "PersistentVolumeClaim", "audit-archives"))
    assert list(check(worker, manifests)) != []


def test_a_secret_in_the_open_is_found():
    settings = {"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"CLINIC_AMQP_URL": "amqp://a:b@c"}}
    assert policies.secrets_in_the_open((settings,)) != []
