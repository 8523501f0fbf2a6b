"""Who may speak to whom under the rendered network policies, for pods of one namespace."""

from collections.abc import Iterator, Mapping
from typing import Any

from .manifests import Manifest, labels, of_kind, selects, title, workloads

Labels = Mapping[str, str]
Port = int | str


def pods(manifests: tuple[Manifest, ...]) -> dict[str, Labels]:
    """Return the labels of every kind of pod, those that operators make included."""
    known: dict[str, Labels] = {title(workload): labels(workload) for workload in workloads(manifests)}
    for cluster in of_kind(manifests, "Cluster"):
        known[title(cluster)] = cluster["spec"]["inheritedMetadata"]["labels"]
    for cluster in of_kind(manifests, "RabbitmqCluster"):
        name = cluster["metadata"]["name"]
        known[title(cluster)] = {"app.kubernetes.io/component": "rabbitmq", "app.kubernetes.io/name": name}
    return known


def edges(manifests: tuple[Manifest, ...]) -> set[tuple[str, str, Port]]:
    """Return (from, to, port) for all that both sides allow."""
    everybody = pods(manifests)
    policies = [policy["spec"] for policy in of_kind(manifests, "NetworkPolicy")]
    return {
        (source, target, port)
        for source, of_source in everybody.items()
        for target, of_target in everybody.items()
        for port in _allowed(policies, "egress", of_source, of_target)
        if port in _allowed(policies, "ingress", of_target, of_source)
    }


def outside(manifests: tuple[Manifest, ...]) -> set[tuple[str, Port]]:
    """Return (from, port) for all that may leave for addresses outside the cluster."""
    policies = [policy["spec"] for policy in of_kind(manifests, "NetworkPolicy")]
    return {
        (source, port["port"])
        for source, given in pods(manifests).items()
        for rule in _rules(policies, "egress", given)
        if "to" not in rule or any("ipBlock" in peer for peer in rule["to"])
        for port in rule["ports"]
    }


def _allowed(policies: list[Any], direction: str, subject: Labels, peer: Labels) -> set[Port]:
    side = "to" if direction == "egress" else "from"
    return {
        port["port"]
        for rule in _rules(policies, direction, subject)
        if side in rule and any(_is(candidate, peer) for candidate in rule[side])
        for port in rule["ports"]
    }


def _rules(policies: list[Any], direction: str, subject: Labels) -> Iterator[Mapping[str, Any]]:
    for policy in policies:
        if selects(policy["podSelector"], subject):
            yield from policy.get(direction, [])


def _is(peer: Mapping[str, Any], given: Labels) -> bool:
    """Peers of other namespaces are nobody of ours."""
    return "namespaceSelector" not in peer and "podSelector" in peer and selects(peer["podSelector"], given)
