"""Without a mesh, everything between pods is encrypted and verified: addresses, certificates, probes, what is scraped."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from clinic_gateway.settings import GatewaySettings
from clinic_local.commands_secrets import TO_BE_BROUGHT
from clinic_local.kubernetes import AUTHORITY, CERTIFICATE
from clinic_local.production_secrets import Addresses, SecretsFolder, make_all
from clinic_shared.contracts import load
from clinic_shared.production import goes_in_clear
from clinic_shared.secret_files import SECRETS_DIR

from .manifests import NAME, containers, labels, of_kind, one, pod, rendered, settings_of, title, workloads
from .test_kubernetes_services import settings_class

CONTRACTS = load()
SERVICES = tuple(CONTRACTS.services)
PLAIN = rendered("overlays/production")
TLS = rendered("overlays/production-tls")
DEPLOYMENTS = of_kind(TLS, "Deployment")
A_DAY = timedelta(days=1)


def certificate(name: str):
    return one(TLS, "Certificate", name)["spec"]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """What `clinic secrets init --tls` makes of production's addresses, with what vendors give."""
    folder = tmp_path_factory.mktemp("secrets")
    at = Addresses(
        postgres="{service}-database-rw:5432",
        amqp="rabbitmq:5671",
        management="rabbitmq:15671",
        vhost="clinic",
        authority=AUTHORITY,
    )
    made = SecretsFolder(folder)
    make_all(made, SERVICES, at)
    for process, names in TO_BE_BROUGHT.items():
        for name in names:
            made.keep(f"{process}/{name}", lambda: "of a vendor")
    return folder


def test_it_is_production_and_nothing_is_left_out():
    # Names of settings end in a digest of what is in them.
    kept = {title(m) for m in PLAIN if m["kind"] != "ConfigMap"}
    assert kept <= {title(m) for m in TLS}


@pytest.mark.parametrize("workload", workloads(TLS), ids=title)
def test_everybody_has_a_certificate_and_reads_it_where_it_is(workload):
    (volume,) = [v for v in pod(workload)["volumes"] if v["name"] == "certificate"]
    made = certificate(volume["secret"]["secretName"])
    assert made["secretName"] == volume["secret"]["secretName"]
    (mounted,) = [m for m in containers(workload)[0]["volumeMounts"] if m["name"] == "certificate"]
    assert (mounted["mountPath"], mounted["readOnly"]) == (CERTIFICATE, True)
    told = settings_of(workload, TLS)
    assert told["CLINIC_TLS_CERTIFICATE_FILE"] == f"{CERTIFICATE}/tls.crt"
    assert told["CLINIC_TLS_KEY_FILE"] == f"{CERTIFICATE}/tls.key"
    assert told["CLINIC_TLS_AUTHORITY_FILE"] == AUTHORITY


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=title)
def test_every_process_starts_as_it_is_told(deployment, secrets):
    """The check of production that refuses what goes in clear: without a word of a mesh."""
    name = labels(deployment)[NAME]
    folder = secrets / name
    environ = settings_of(deployment, TLS) | {SECRETS_DIR: str(folder)}
    assert environ["CLINIC_NETWORK_IS_ENCRYPTED"] == "false"
    if name == "gateway":
        gateway = GatewaySettings.from_environ(environ)
        assert set(gateway.upstream_urls) == set(SERVICES)
        return
    fields = {f"CLINIC_{field.upper()}": field for field in settings_class(name).model_fields}
    told: dict[str, Any] = {
        field: environ[variable] for variable, field in fields.items() if variable in environ
    }
    told |= {file.name.removeprefix("clinic_"): file.read_text() for file in folder.glob("clinic_*")}
    settings = settings_class(name)(**told)
    assert not goes_in_clear(settings.database_url.get_secret_value())


@pytest.mark.parametrize("service", SERVICES)
def test_what_the_gateway_and_the_services_call_is_in_the_certificate(service, secrets):
    upstreams = dict(pair.split("=", 1) for pair in one_map()["CLINIC_UPSTREAMS"].split(","))
    assert urlsplit(upstreams[service]).scheme == "https"
    assert urlsplit(upstreams[service]).hostname in certificate(f"{service}-certificate")["dnsNames"]
    database = urlsplit((secrets / service / "clinic_database_url").read_text())
    spec = one(TLS, "Cluster", f"{service}-database")["spec"]["certificates"]
    shown = certificate(spec["serverTLSSecret"])
    assert database.hostname in shown["dnsNames"]
    assert spec["serverCASecret"] == spec["serverTLSSecret"]
    assert shown["secretTemplate"]["labels"] == {"cnpg.io/reload": ""}


def one_map() -> dict[str, str]:
    found: dict[str, str] = one(TLS, "ConfigMap", settings_name())["data"]
    return found


def settings_name() -> str:
    (source, *_) = containers(one(TLS, "Deployment", "gateway"))[0]["envFrom"]
    return str(source["configMapRef"]["name"])


def test_the_broker_speaks_nothing_else_and_is_known_by_its_name(secrets):
    tls = one(TLS, "RabbitmqCluster", "rabbitmq")["spec"]["tls"]
    assert tls["disableNonTLSListeners"] is True
    names = certificate(tls["secretName"])["dnsNames"]
    addresses = [
        file for name in ("clinic_amqp_url", "clinic_amqp_management_url") for file in secrets.rglob(name)
    ]
    assert len(addresses) > len(SERVICES)
    for file in addresses:
        address = urlsplit(file.read_text())
        assert (address.scheme in {"amqps", "https"}, address.hostname in names) == (True, True), file


def test_certificates_live_a_day_and_come_with_a_new_key():
    for made in of_kind(TLS, "Certificate"):
        if made["spec"].get("isCA"):
            continue
        spec = made["spec"]
        life, renewed = (
            timedelta(hours=int(spec[name].removesuffix("h"))) for name in ("duration", "renewBefore")
        )
        assert renewed < life <= A_DAY
        assert spec["privateKey"] == {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}
        assert spec["issuerRef"]["name"] == "polyclinic"
    authority = one(TLS, "Issuer", "polyclinic")["spec"]["ca"]["secretName"]
    assert certificate("polyclinic-authority")["secretName"] == authority


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=title)
def test_probes_ask_by_https(deployment):
    container = containers(deployment)[0]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["scheme"] for probe in probes} == {"HTTPS"}
    assert {probe["port"] for probe in probes} == {"http"}


def test_prometheus_verifies_what_it_scrapes():
    for name, shown in (("polyclinic", "identity-certificate"), ("rabbitmq", "rabbitmq-certificate")):
        for endpoint in one(TLS, "PodMonitor", name)["spec"]["podMetricsEndpoints"]:
            assert endpoint["scheme"] == "https"
            assert endpoint["tlsConfig"]["serverName"] in certificate(shown)["dnsNames"]
            assert endpoint["tlsConfig"]["ca"]["secret"]["key"] == "ca.crt"


def test_no_setting_names_an_address_in_clear():
    told = {name: value for m in of_kind(TLS, "ConfigMap") for name, value in m.get("data", {}).items()}
    clear = {name for name, value in told.items() if re.search(r"(?<![a-z])(http|amqp|mllp)://", value)}
    # Traces hold no patient data; the collector's operator says how it is reached.
    assert clear <= {"OTEL_EXPORTER_OTLP_ENDPOINT"}
