"""What in `deploy/k8s` follows from code: per service its database, broker user, scaling and secrets; and the
broker's policies and the Prometheus rules.

`python -m clinic_local.kubernetes` writes the files; `make test` fails while they differ.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from clinic_shared import contracts
from clinic_shared.broker_access import EVERYTHING, Access, accesses
from clinic_shared.topology import Policy, Topology, parking_queue

from clinic_local.environment import database_name

DEPLOY = contracts.CONTRACTS_DIR.parent / "deploy"
COMPONENTS = DEPLOY / "k8s" / "components"
RULES = DEPLOY / "observability" / "prometheus" / "rules"
HEADER = "# Written by python -m clinic_local.kubernetes.\n"
CLUSTER = {"name": "rabbitmq"}
VHOST = "clinic"

Manifest = Mapping[str, Any]


def files() -> Iterator[tuple[Path, str]]:
    """Yield each file with what belongs in it. A component's file of a service's name holds what is that service's."""
    services = tuple(contracts.load().services)
    topology = Topology.of(services)
    yield COMPONENTS / "rabbitmq" / "policies.yaml", _text([_policy(policy) for policy in topology.policies])
    for access in accesses(services):
        yield COMPONENTS / "rabbitmq" / f"{access.user}.yaml", _text(_broker_user(access))
        yield (
            COMPONENTS / "external-secrets" / f"{access.user}.yaml",
            _text([_secrets(access.user), *_passwords(access.user, has_database=access.user in services)]),
        )
    for service in services:
        yield COMPONENTS / "cloudnative-pg" / f"{service}.yaml", _text([_database(service)])
        yield COMPONENTS / "keda" / f"{service}.yaml", _text(_scaling(service, topology))
    yield COMPONENTS / "prometheus-operator" / "rules.yaml", _text([_rules()])


def _policy(policy: Policy) -> Manifest:
    document = policy.document()
    return _manifest(
        "rabbitmq.com/v1beta1",
        "Policy",
        policy.name,
        name=policy.name,
        vhost=VHOST,
        pattern=document["pattern"],
        applyTo=document["apply-to"],
        priority=document["priority"],
        definition=document["definition"],
        rabbitmqClusterReference=CLUSTER,
    )


def _broker_user(access: Access) -> list[Manifest]:
    """The password comes from a secret, so that the address of the broker can be made of the same one."""
    name = f"{access.user}-broker"
    user = _manifest(
        "rabbitmq.com/v1beta1",
        "User",
        name,
        tags=list(access.tags),
        importCredentialsSecret={"name": name},
        rabbitmqClusterReference=CLUSTER,
    )
    permission = _manifest(
        "rabbitmq.com/v1beta1",
        "Permission",
        name,
        vhost=VHOST,
        userReference={"name": name},
        permissions={"configure": access.configure, "write": access.write, "read": access.read},
        rabbitmqClusterReference=CLUSTER,
    )
    topics = [
        _manifest(
            "rabbitmq.com/v1beta1",
            "TopicPermission",
            f"{name}-{exchange.replace('.', '-')}",
            vhost=VHOST,
            userReference={"name": name},
            permissions={"exchange": exchange, "write": write, "read": EVERYTHING},
            rabbitmqClusterReference=CLUSTER,
        )
        for exchange, write in access.topics
    ]
    return [user, permission, *topics]


def _database(service: str) -> Manifest:
    name = f"{service}-database"
    initdb = {
        "database": database_name(service),
        "owner": database_name(service),
        "secret": {"name": f"{name}-owner"},
    }
    labels = {"app.kubernetes.io/component": "database", "polyclinic/service": service}
    return _manifest(
        "postgresql.cnpg.io/v1",
        "Cluster",
        name,
        bootstrap={"initdb": initdb},
        inheritedMetadata={"labels": labels},
    )


def _scaling(service: str, topology: Topology) -> list[Manifest]:
    """An API follows its processors; a worker the messages that wait for it, those set apart excepted."""
    parking = parking_queue(service)
    waiting = [q.name for q in topology.queues if q.name.startswith(f"{service}.") and q.name != parking]
    pattern = "|".join(name.removeprefix(f"{service}.").replace(".", "\\.") for name in waiting)
    api = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}
    worker = {"type": "rabbitmq", "metadata": {"queueName": f"^{service}\\.({pattern})$"}}
    return [
        _manifest(
            "keda.sh/v1alpha1",
            "ScaledObject",
            f"{service}-{role}",
            scaleTargetRef={"name": f"{service}-{role}"},
            triggers=[trigger],
        )
        for role, trigger in (("api", api), ("worker", worker))
    ]


def _secrets(user: str) -> Manifest:
    """All files of the store's entry, under their names."""
    return _manifest(
        "external-secrets.io/v1",
        "ExternalSecret",
        f"{user}-secrets",
        dataFrom=[{"extract": {"key": _entry(user)}}],
    )


def _passwords(user: str, *, has_database: bool) -> Iterator[Manifest]:
    """The same passwords once more, for whoever makes the users with them."""
    yield _credentials(f"{user}-broker", user, _entry(user), "broker-password")
    if has_database:
        yield _credentials(f"{user}-database-owner", database_name(user), _entry(user), "database-password")


def _credentials(name: str, username: str, entry: str, property_: str) -> Manifest:
    return _manifest(
        "external-secrets.io/v1",
        "ExternalSecret",
        name,
        target={
            "template": {
                "type": "kubernetes.io/basic-auth",
                "data": {"username": username, "password": "{{ .password }}"},
            }
        },
        data=[{"secretKey": "password", "remoteRef": {"key": entry, "property": property_}}],
    )


def _entry(user: str) -> str:
    return f"polyclinic/{user}"


def _rules() -> Manifest:
    groups = [
        group
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    ]
    return _manifest("monitoring.coreos.com/v1", "PrometheusRule", "polyclinic", groups=groups)


def _manifest(api_version: str, kind: str, name: str, /, **spec: Any) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}


class _Dumper(yaml.SafeDumper):
    """Repeats what occurs twice, and indents lists, as people write them."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)


def _text(manifests: list[Manifest]) -> str:
    return HEADER + yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    for path, text in files():
        path.write_text(text, encoding="utf-8")
