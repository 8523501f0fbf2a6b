"""What is deployed is what the contracts and the code know: services, addresses, settings, no other ways between them."""

import importlib
import shutil

import pytest
from clinic_gateway.routes import SERVICES
from clinic_gateway.settings import GatewaySettings
from clinic_shared.contracts import load
from clinic_shared.secret_files import SECRETS_DIR
from clinic_shared.settings import ServiceSettings

from .manifests import (
    COMPONENT,
    K8S,
    NAME,
    containers,
    labels,
    of_kind,
    one,
    pod,
    render,
    rendered,
    selects,
    settings_of,
    title,
    workloads,
)

CONTRACTS = load()
INDISPENSABLE = {"identity", "audit"}
BASE = rendered("base")


def settings_class(service: str) -> type[ServiceSettings]:
    return importlib.import_module(f"{CONTRACTS.services[service].package}.app").service.settings


def gateway_settings(manifests):
    environ = settings_of(one(manifests, "Deployment", "gateway"), manifests)
    return GatewaySettings.from_environ({**environ, SECRETS_DIR: "", "CLINIC_ENVIRONMENT": "test"})


@pytest.mark.parametrize("service", CONTRACTS.services)
def test_every_service_has_api_worker_and_migration(service):
    package = CONTRACTS.services[service].package
    for kind, role, argument in (
        ("Deployment", "api", "api"),
        ("Deployment", "worker", "worker"),
        ("Job", "migration", "migrate"),
    ):
        workload = one(BASE, kind, f"{service}-{role}")
        assert containers(workload)[0]["command"] == ["python", "-m", package, argument]
        assert (labels(workload)[NAME], labels(workload)[COMPONENT]) == (service, role)
        (secrets,) = [
            volume["secret"]["secretName"] for volume in pod(workload)["volumes"] if "secret" in volume
        ]
        assert secrets == f"{service}-secrets"


def test_nothing_is_deployed_that_nobody_knows():
    deployed = {labels(workload)[NAME] for workload in workloads(BASE)}
    assert deployed == {*CONTRACTS.services, "gateway", "topology"}


def test_the_gateway_knows_every_service_by_an_address_that_exists():
    upstreams = gateway_settings(BASE).upstream_urls
    assert set(upstreams) == set(CONTRACTS.services) == set(SERVICES)
    for service, url in upstreams.items():
        address = one(BASE, "Service", url.removeprefix("http://").partition(":")[0])
        (port,) = address["spec"]["ports"]
        assert url.endswith(f":{port['port']}")
        assert selects(
            {"matchLabels": address["spec"]["selector"]}, labels(one(BASE, "Deployment", f"{service}-api"))
        )


def test_everybody_reads_keys_where_the_gateway_finds_identity():
    gateway = gateway_settings(BASE)
    assert gateway.jwks_url == f"{gateway.upstream_urls['identity']}/.well-known/jwks.json"


@pytest.mark.parametrize("workload", workloads(BASE), ids=title)
def test_everybody_is_told_which_services_are_installed(workload):
    installed = settings_of(workload, BASE)["CLINIC_SUBSCRIBED_SERVICES"].split(",")
    assert set(filter(None, installed)) == set(CONTRACTS.services)


@pytest.mark.parametrize("workload", workloads(BASE), ids=title)
def test_every_setting_exists_in_the_code(workload):
    service = labels(workload)[NAME]
    own = settings_class(service) if service in CONTRACTS.services else ServiceSettings
    # One set of settings is given to all: the gateway's are among them.
    known = {f"CLINIC_{field.upper()}" for field in {*own.model_fields, *GatewaySettings.model_fields}}
    known.add(SECRETS_DIR)
    assert set(settings_of(workload, BASE)) - known == set()


@pytest.mark.parametrize("service", sorted(set(CONTRACTS.services) - INDISPENSABLE))
def test_removing_one_line_leaves_a_service_out(service, tmp_path):
    folder = shutil.copytree(K8S / "base", tmp_path / "base")
    kustomization = folder / "kustomization.yaml"
    lines = kustomization.read_text(encoding="utf-8").splitlines(keepends=True)
    left = [line for line in lines if line != f"  - services/{service}\n"]
    assert len(left) == len(lines) - 1
    kustomization.write_text("".join(left), encoding="utf-8")
    manifests = render(folder)
    assert service not in {labels(workload)[NAME] for workload in workloads(manifests)}
    assert service not in gateway_settings(manifests).upstream_urls
    installed = settings_of(one(manifests, "Deployment", "identity-api"), manifests)[
        "CLINIC_SUBSCRIBED_SERVICES"
    ]
    assert service not in installed.split(",")
    assert [
        title(m) for m in of_kind(manifests, "NetworkPolicy") if m["metadata"]["name"].startswith(service)
    ] == []


@pytest.mark.parametrize("overlay", ["overlays/dev", "overlays/production"])
def test_the_audit_worker_alone_archives_into_a_volume_that_stays(overlay):
    manifests = rendered(overlay)
    writers = {}
    for workload in workloads(manifests):
        mounted = {mount["mountPath"]: mount["name"] for mount in containers(workload)[0]["volumeMounts"]}
        folder = settings_of(workload, manifests).get("CLINIC_AUDIT_ARCHIVE_DIR")
        if folder is not None:
            volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
            writers[title(workload)] = volumes[mounted[folder]]["persistentVolumeClaim"]["claimName"]
    assert writers == {"Deployment/audit-worker": "audit-archives"}
    claim = one(manifests, "PersistentVolumeClaim", "audit-archives")
    assert claim["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"
