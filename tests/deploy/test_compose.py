"""The compose file is valid, and what it starts is what the contracts and the code know."""

import json
import re
from importlib.resources import files
from typing import Any

import jsonschema_rs
import pytest
import yaml
from clinic_gateway.settings import GatewaySettings
from clinic_shared.contracts import load
from clinic_shared.secret_files import SECRETS_DIR
from clinic_shared.settings import ServiceSettings
from clinic_shared.tracing import ENDPOINTS

from .manifests import ROOT
from .test_kubernetes_services import settings_class

FOLDER = ROOT / "deploy" / "compose"
OBSERVABILITY = ROOT / "deploy" / "observability"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVICES = tuple(load().services)
ROLES = {"api": "api", "worker": "worker", "migration": "migrate"}
ARCHIVES = "audit-archives:/var/lib/clinic/audit-archives"
SERVERS = {"postgres", "rabbitmq", "prometheus", "grafana"}
OURS = {name: one for name, one in CONTAINERS.items() if name not in SERVERS}


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    lines = (FOLDER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def schema() -> Any:
    vendored = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json")
    return jsonschema_rs.validator_for(json.loads(vendored.read_text(encoding="utf-8")))


def networks(name: str) -> set[str]:
    return set(CONTAINERS[name].get("networks", []))


def starts_after(name: str) -> dict[str, str]:
    return {other: how["condition"] for other, how in CONTAINERS[name].get("depends_on", {}).items()}


def test_the_file_is_what_the_specification_says():
    assert [error.message for error in schema().iter_errors(COMPOSE)] == []


def test_a_mistyped_field_is_found():
    broken = {**COMPOSE, "services": {"gateway": {**CONTAINERS["gateway"], "imgae": "x"}}}
    assert not schema().is_valid(broken)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("role", ROLES)
def test_every_service_has_api_worker_and_migration(service, role):
    container = CONTAINERS[f"{service}-{role}"]
    assert container["command"] == [load().services[service].package, ROLES[role]]
    assert container["profiles"] == [service]
    secrets, *more = container["volumes"]
    assert secrets == f"./secrets/{service}:/run/secrets/clinic:ro"
    assert more == ([ARCHIVES] if (service, role) == ("audit", "worker") else [])


def test_the_audit_worker_archives_into_a_volume_that_it_may_write():
    folder = ARCHIVES.partition(":")[2]
    assert CONTAINERS["audit-worker"]["environment"]["CLINIC_AUDIT_ARCHIVE_DIR"] == folder
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    # The root file system is read-only, and a new volume belongs to whom the image's folder belongs to.
    assert re.search(rf"^RUN install .*--owner=10001 .*{folder}$", dockerfile, re.MULTILINE)


def test_the_installed_services_are_one_list(example):
    assert example["COMPOSE_PROFILES"].split(",") == list(SERVICES)
    of_services = {f"{service}-{role}" for service in SERVICES for role in ROLES}
    assert of_services | {"gateway", "topology", "clinic", "secrets"} == set(OURS)
    for name in OURS.keys() - {"secrets"}:
        assert "COMPOSE_PROFILES" in CONTAINERS[name]["environment"]["CLINIC_SUBSCRIBED_SERVICES"]


def test_the_gateway_knows_every_service_by_its_container():
    environment = CONTAINERS["gateway"]["environment"]
    urls = GatewaySettings(upstreams=environment["CLINIC_UPSTREAMS"]).upstream_urls
    assert urls == {service: f"http://{service}-api:8080" for service in SERVICES}
    assert environment["CLINIC_JWKS_URL"] == f"{urls['identity']}/.well-known/jwks.json"


@pytest.mark.parametrize("service", SERVICES)
def test_things_start_in_the_order_of_an_upgrade(service):
    assert starts_after(f"{service}-migration") == {"postgres": "service_healthy"}
    migrated = {f"{service}-migration": "service_completed_successfully"}
    assert starts_after(f"{service}-api") == migrated
    assert starts_after(f"{service}-worker") == {**migrated, "topology": "service_completed_successfully"}
    assert starts_after("topology") == {"rabbitmq": "service_healthy"}


def test_everything_that_stays_is_checked_for_health():
    unchecked = [
        name
        for name, one in CONTAINERS.items()
        if one["restart"] != "no" and ("test" not in one.get("healthcheck", {}))
    ]
    assert unchecked == []


def test_only_the_gateway_and_mllp_are_published():
    assert [
        name for name, one in CONTAINERS.items() if "ports" in one or one.get("network_mode") == "host"
    ] == ["gateway", "lab-integration-api"]
    [mllp] = CONTAINERS["lab-integration-api"]["ports"]
    assert mllp.endswith(":" + CONTAINERS["lab-integration-api"]["environment"]["CLINIC_MLLP_PORT"])
    open_networks = {name for name, one in COMPOSE["networks"].items() if not (one or {}).get("internal")}
    assert {name for name in CONTAINERS if networks(name) & open_networks} == {
        "gateway",
        "lab-integration-api",
        "lab-integration-worker",
        "billing-worker",
        "notifications-worker",
    }


def test_services_share_networks_with_identity_only():
    """For its public keys; that is the one way between services."""
    for service in SERVICES:
        for other in set(SERVICES) - {service, "identity"}:
            for role in ROLES:
                shared = networks(f"{service}-{role}") & networks(f"{other}-api")
                assert shared == set() or service == "identity", f"{service}-{role} reaches {other}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reaches_its_servers_and_the_gateway_and_prometheus_reach_it(service):
    for container in ("postgres", "rabbitmq", "gateway", "prometheus", "identity-api"):
        assert service in networks(container)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_privileges(name):
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in container
    # Making secrets into a folder of whoever calls it takes root inside the container.
    assert name == "secrets" or (container["cap_drop"] == ["ALL"] and "user" not in container)


def test_no_image_floats():
    for name, container in CONTAINERS.items():
        image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", container["image"])
        assert re.search(r":(?!latest$)[\w.-]+$", image), name


def test_no_secret_stands_in_the_file():
    secret = re.compile(r"password|secret|token|_key$", re.IGNORECASE)
    allowed = {
        SECRETS_DIR,
        "CLINIC_TOKEN_ISSUER",
        "CLINIC_PASSWORD_THREADS",
        "CLINIC_INTERNAL_TOKENS_ONLY",
    }
    for container in CONTAINERS.values():
        for name, value in container.get("environment", {}).items():
            is_file = str(value).startswith("/run/secrets/")
            assert is_file or name in allowed or not secret.search(name), name
            assert not re.search(r"://[^/@\s]+:[^/@\s]+@", str(value))


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"secrets"}))
def test_every_setting_exists_in_the_code(name):
    service = name.rpartition("-")[0]
    own = settings_class(service) if service in SERVICES else ServiceSettings
    known = {f"CLINIC_{field.upper()}" for field in {*own.model_fields, *GatewaySettings.model_fields}}
    assert set(CONTAINERS[name]["environment"]) - known - {SECRETS_DIR, *ENDPOINTS} == set()


def test_every_variable_is_explained(example):
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+)", text)) - {"PIP_INDEX_URL"}
    assert asked == set(example)


def test_what_is_mounted_is_there():
    for name, container in CONTAINERS.items():
        for volume in container.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                made = source.startswith("./secrets") or (FOLDER / source).exists()
                assert made, f"{name} mounts {source}"
            else:
                assert source in COMPOSE["volumes"]


def test_prometheus_reads_every_process():
    document = yaml.safe_load((OBSERVABILITY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    targets = {
        target
        for job in document["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    expected = {f"{service}-{role}:8080" for service in SERVICES for role in ("api", "worker")}
    assert targets >= {*expected, "gateway:8080", "rabbitmq:15692"}
