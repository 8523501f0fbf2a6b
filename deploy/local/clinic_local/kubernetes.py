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
NAMESPACE = "polyclinic"
CERTIFICATE = "/run/secrets/certificate"
AUTHORITY = f"{CERTIFICATE}/ca.crt"
METRICS = f"metrics.{NAMESPACE}"
MAIN = "/spec/template/spec/containers/0"

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
    yield from _tls_files(services)


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


def _tls_files(services: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Everybody's certificate, and what it is laid into."""
    folder = COMPONENTS / "tls"
    for service in services:
        own = [_certificate(service, f"{service}-api", METRICS), _database_certificate(service)]
        yield folder / f"{service}.yaml", _text(own)
    yield folder / "gateway.yaml", _text([_certificate("gateway", "gateway", METRICS)])
    nodes = f"*.rabbitmq-nodes.{NAMESPACE}"
    yield folder / "rabbitmq.yaml", _text([_certificate("rabbitmq", "rabbitmq", METRICS, nodes)])
    yield folder / "settings.yaml", _text([_tls_settings(services)])
    yield folder / "kustomization.yaml", _text([_tls_kustomization(services)])


def _certificate(name: str, host: str, *more: str) -> Manifest:
    names = [host, f"{host}.{NAMESPACE}", f"{host}.{NAMESPACE}.svc", *more]
    secret = f"{name}-certificate"
    return _manifest("cert-manager.io/v1", "Certificate", secret, secretName=secret, dnsNames=names)


def _database_certificate(service: str) -> Manifest:
    database = f"{service}-database"
    made = _certificate(database, f"{database}-rw", f"{database}-r", f"{database}-ro")
    # CloudNativePG reads a secret again that is labelled so.
    return {**made, "spec": {**made["spec"], "secretTemplate": {"labels": {"cnpg.io/reload": ""}}}}


def _tls_settings(services: tuple[str, ...]) -> Manifest:
    upstreams = {service: f"https://{service}-api:8080" for service in services}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "polyclinic"},
        "data": {
            "CLINIC_NETWORK_IS_ENCRYPTED": "false",
            "CLINIC_TLS_CERTIFICATE_FILE": f"{CERTIFICATE}/tls.crt",
            "CLINIC_TLS_KEY_FILE": f"{CERTIFICATE}/tls.key",
            "CLINIC_TLS_AUTHORITY_FILE": AUTHORITY,
            "CLINIC_JWKS_URL": f"{upstreams['identity']}/.well-known/jwks.json",
            # Of those that aren't installed the gateway takes no notice.
            "CLINIC_UPSTREAMS": ",".join(f"{service}={url}" for service, url in upstreams.items()),
        },
    }


def _tls_kustomization(services: tuple[str, ...]) -> Manifest:
    own = [f"{name}.yaml" for name in (*services, "gateway", "rabbitmq")]
    patches: list[Manifest] = [
        _laid_over("Certificate", "every-certificate.yaml", name=".*-certificate"),
        _laid_over("Deployment|Job", "every-pod.yaml"),
        _laid_over("Deployment", "every-deployment.yaml"),
        _laid_over("RabbitmqCluster", "broker.yaml"),
        _laid_over("ConfigMap", "settings.yaml", name="polyclinic"),
        *(_mounted(service, labelSelector=f"polyclinic/service={service}") for service in services),
        _mounted("gateway", name="gateway"),
        # It shows none; whom it trusts is the same.
        _mounted("gateway", name="topology"),
        _changed(
            "Job", _added(f"{MAIN}/env/-", {"name": "SSL_CERT_FILE", "value": AUTHORITY}), name="topology"
        ),
        *(_served_with(service) for service in services),
        *(_scraped(monitor, endpoints) for monitor, endpoints in (("polyclinic", 1), ("rabbitmq", 2))),
        _changed(
            "PodMonitor",
            *(_added(f"/spec/podMetricsEndpoints/{n}/port", "prometheus-tls") for n in (0, 1)),
            name="rabbitmq",
        ),
    ]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": ["authority.yaml", "network-policies.yaml", *own],
        "patches": patches,
    }


def _mounted(certificate: str, **target: str) -> Manifest:
    secret = {"secretName": f"{certificate}-certificate", "defaultMode": 0o440}
    volume = {"name": "certificate", "secret": secret}
    return _changed("Deployment|Job", _added("/spec/template/spec/volumes/-", volume), **target)


def _served_with(service: str) -> Manifest:
    secret = f"{service}-database-certificate"
    certificates = {"serverTLSSecret": secret, "serverCASecret": secret}
    return _changed("Cluster", _added("/spec/certificates", certificates), name=f"{service}-database")


def _scraped(monitor: str, endpoints: int) -> Manifest:
    """Pods are asked by their addresses, which no certificate can know: so there is one name that all have."""
    authority = {"secret": {"name": "gateway-certificate", "key": "ca.crt"}}
    added = [
        _added(f"/spec/podMetricsEndpoints/{n}/{name}", value)
        for n in range(endpoints)
        for name, value in (("scheme", "https"), ("tlsConfig", {"ca": authority, "serverName": METRICS}))
    ]
    return _changed("PodMonitor", *added, name=monitor)


def _laid_over(kind: str, file: str, **target: str) -> Manifest:
    return {"path": file, "target": {"kind": kind, **target}}


def _changed(kind: str, *operations: Manifest, **target: str) -> Manifest:
    text = yaml.dump(list(operations), Dumper=_Dumper, sort_keys=False, width=110)
    return {"target": {"kind": kind, **target}, "patch": text}


def _added(path: str, value: Any) -> Manifest:
    return {"op": "add", "path": path, "value": value}


def _manifest(api_version: str, kind: str, name: str, /, **spec: Any) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}


class _Dumper(yaml.SafeDumper):
    """Repeats what occurs twice, and indents lists, as people write them."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if text.startswith("- op: ") else None
    )


_Dumper.add_representer(str, _represent_text)


def _text(manifests: list[Manifest]) -> str:
    return HEADER + yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    for path, text in files():
        path.write_text(text, encoding="utf-8")
