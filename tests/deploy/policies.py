"""What every workload must fulfil: kube-linter's checks that matter here, as functions that return complaints."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clinic_shared.http_server import DRAIN_SECONDS, GRACE_SECONDS

from .manifests import COMPONENT, Manifest, containers, labels, of_kind, pod, selects, title, workloads

Manifests = tuple[Manifest, ...]
Check = Callable[[Manifest, Manifests], Iterator[str]]


def runs_without_privileges(workload: Manifest, _: Manifests) -> Iterator[str]:
    context = pod(workload).get("securityContext", {})
    if not (context.get("runAsNonRoot") and context.get("runAsUser", 0) > 0):
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    for container in containers(workload):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation", True):
            yield "may gain privileges"
        if not own.get("readOnlyRootFilesystem"):
            yield "may write into its image"
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "keeps capabilities"


def has_an_account_without_token(workload: Manifest, manifests: Manifests) -> Iterator[str]:
    name = pod(workload).get("serviceAccountName", "default")
    if name not in {account["metadata"]["name"] for account in of_kind(manifests, "ServiceAccount")}:
        yield f"runs under {name}, which isn't there"
    if pod(workload).get("automountServiceAccountToken", True):
        yield "gets a token of the cluster"


def is_probed(workload: Manifest, _: Manifests) -> Iterator[str]:
    if workload["kind"] == "Job":
        return
    for container in pod(workload)["containers"]:
        missing = {"startupProbe", "readinessProbe", "livenessProbe"} - set(container)
        if missing:
            yield f"lacks {', '.join(sorted(missing))}"
        # An outage of a server must not restart those who wait for it.
        if container.get("livenessProbe", {}).get("httpGet", {}).get("path") == "/readyz":
            yield "is restarted when something else fails"


def is_bounded(workload: Manifest, _: Manifests) -> Iterator[str]:
    for container in containers(workload):
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        if "cpu" not in requests:
            yield "requests no processor time"
        if not requests.get("memory") or requests.get("memory") != limits.get("memory"):
            yield "isn't given the memory that it may use"
    for volume in pod(workload).get("volumes", []):
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"may fill the node's disk through {volume['name']}"


def has_a_pinned_image(workload: Manifest, _: Manifests) -> Iterator[str]:
    for container in containers(workload):
        _, colon, tag = container["image"].rpartition("/")[2].partition(":")
        if not colon or tag == "latest":
            yield f"runs {container['image']}"


def keeps_secrets_out_of_the_environment(workload: Manifest, _: Manifests) -> Iterator[str]:
    for container in containers(workload):
        sources = [entry.get("valueFrom", {}) for entry in container.get("env", [])] + container.get(
            "envFrom", []
        )
        if any("secretKeyRef" in source or "secretRef" in source for source in sources):
            yield "has a secret in its environment"


def is_replaced_without_a_gap(workload: Manifest, _: Manifests) -> Iterator[str]:
    if workload["kind"] == "Deployment":
        rolling = workload["spec"].get("strategy", {}).get("rollingUpdate", {})
        if rolling.get("maxUnavailable") != 0:
            yield "is taken down before its successor is ready"


def ends_before_it_is_killed(workload: Manifest, _: Manifests) -> Iterator[str]:
    role = labels(workload).get(COMPONENT)
    if role not in {"api", "worker", "gateway"}:
        return
    before = (
        containers(workload)[0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    )
    if pod(workload)["terminationGracePeriodSeconds"] <= before + DRAIN_SECONDS + GRACE_SECONDS:
        yield "is killed while it ends"
    if role != "worker" and before < 1:
        yield "gets requests while it ends"


def spreads_over_nodes(workload: Manifest, _: Manifests) -> Iterator[str]:
    if workload["kind"] != "Deployment":
        return
    constraints = pod(workload).get("topologySpreadConstraints", [])
    keys = {one["topologyKey"] for one in constraints if selects(one["labelSelector"], labels(workload))}
    if not keys >= {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
        yield "may run on one node only"


def selects_its_own_pods(workload: Manifest, manifests: Manifests) -> Iterator[str]:
    if workload["kind"] == "Job":
        return
    selector = workload["spec"]["selector"]
    if not selects(selector, labels(workload)):
        yield "doesn't select its own pods"
    others = [
        other
        for other in workloads(manifests)
        if title(other) != title(workload) and selects(selector, labels(other))
    ]
    if others:
        yield f"selects the pods of {others[0]['metadata']['name']} too"


def allows_draining(workload: Manifest, manifests: Manifests) -> Iterator[str]:
    """A budget that lets no pod go stops the maintenance of nodes; no budget at all lets all go at once."""
    budgets = [
        budget["spec"]
        for budget in of_kind(manifests, "PodDisruptionBudget")
        if selects(budget["spec"]["selector"], labels(workload))
    ]
    if workload["kind"] == "Deployment" and not budgets:
        yield "has no disruption budget"
    for budget in budgets:
        if "minAvailable" in budget or budget.get("maxUnavailable", 0) in {0, "0%"}:
            yield "can block the draining of a node"
        if budget.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield "can block the draining of a node while it isn't ready"


def cleans_up_after_itself(workload: Manifest, _: Manifests) -> Iterator[str]:
    if workload["kind"] == "Job" and "ttlSecondsAfterFinished" not in workload["spec"]:
        yield "stays for ever"


def refers_to_what_is_there(workload: Manifest, manifests: Manifests) -> Iterator[str]:
    maps = {one["metadata"]["name"] for one in of_kind(manifests, "ConfigMap")}
    secrets, claims = secrets_of(manifests), claims_of(manifests)
    volumes = pod(workload).get("volumes", [])
    named = {volume["name"] for volume in volumes}
    for volume in volumes:
        if "configMap" in volume and volume["configMap"]["name"] not in maps:
            yield f"mounts {volume['configMap']['name']}, which isn't there"
        if secrets and "secret" in volume and volume["secret"]["secretName"] not in secrets:
            yield f"mounts {volume['secret']['secretName']}, which nobody makes"
        if "persistentVolumeClaim" in volume and volume["persistentVolumeClaim"]["claimName"] not in claims:
            yield f"mounts {volume['persistentVolumeClaim']['claimName']}, which nobody claims"
    for container in containers(workload):
        for source in container.get("envFrom", []):
            if source["configMapRef"]["name"] not in maps:
                yield f"reads {source['configMapRef']['name']}, which isn't there"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in named | _claims(workload):
                yield f"mounts {mount['name']}, which isn't there"
        yield from _unknown_ports(container)


def finds_its_disk_on_every_node(workload: Manifest, manifests: Manifests) -> Iterator[str]:
    """Without a number of its own, one is scaled: several pods, on several nodes."""
    if workload["kind"] != "Deployment" or workload["spec"].get("replicas") == 1:
        return
    claims = claims_of(manifests)
    for volume in pod(workload).get("volumes", []):
        name = volume.get("persistentVolumeClaim", {}).get("claimName")
        if name in claims and claims[name]["spec"]["accessModes"] != ["ReadWriteMany"]:
            yield f"shares {name}, which only one node can mount"


def claims_of(manifests: Manifests) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in of_kind(manifests, "PersistentVolumeClaim")}


def secrets_of(manifests: Manifests) -> set[str]:
    """Return the secrets that the manifests bring about; empty where people make them by hand."""
    stored = {one["metadata"]["name"] for one in of_kind(manifests, "ExternalSecret")}
    signed = {one["spec"]["secretName"] for one in of_kind(manifests, "Certificate")}
    return stored | signed if stored else set()


def _claims(workload: Manifest) -> set[str]:
    return {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}


def _unknown_ports(container: Mapping[str, Any]) -> Iterator[str]:
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        action = container.get(probe, {})
        port = (action.get("httpGet") or action.get("tcpSocket") or {}).get("port")
        if isinstance(port, str) and port not in ports:
            yield f"is probed on port {port}, which it doesn't have"


CHECKS: tuple[Check, ...] = (
    runs_without_privileges,
    has_an_account_without_token,
    is_probed,
    is_bounded,
    has_a_pinned_image,
    keeps_secrets_out_of_the_environment,
    is_replaced_without_a_gap,
    ends_before_it_is_killed,
    spreads_over_nodes,
    selects_its_own_pods,
    allows_draining,
    cleans_up_after_itself,
    refers_to_what_is_there,
    finds_its_disk_on_every_node,
)

_SECRET = re.compile(r"password|passwd|secret|token|private.?key|://[^/@\s]+:[^/@\s]+@", re.IGNORECASE)
_NO_SECRETS = {
    "CLINIC_INTERNAL_TOKENS_ONLY",
    "CLINIC_TOKEN_ISSUER",
    "CLINIC_TOKEN_AUDIENCE",
    "CLINIC_PASSWORD_THREADS",
    "CLINIC_SECRETS_DIR",
}


def secrets_in_the_open(manifests: Manifests) -> list[str]:
    """Return what looks like a secret in a manifest; secrets come from a store, never from here."""
    found = [f"Secret/{one['metadata']['name']}" for one in of_kind(manifests, "Secret")]
    for one in of_kind(manifests, "ConfigMap"):
        for name, value in one["data"].items():
            if name not in _NO_SECRETS and _SECRET.search(f"{name}={value}") and "/run/secrets/" not in value:
                found.append(f"ConfigMap/{one['metadata']['name']}: {name}")
    return found
