"""What kustomize makes of `deploy/k8s`, and how tests look at it."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from clinic_shared.contracts import CONTRACTS_DIR

ROOT = CONTRACTS_DIR.parent
K8S = ROOT / "deploy" / "k8s"
KUBECTL = Path(sys.executable).parent / "kubectl"
CORE_GROUPS = {"", "apps", "batch", "policy", "networking.k8s.io", "autoscaling"}
NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"

Manifest = Mapping[str, Any]


class RenderError(Exception):
    """kustomize refused; the message is its own."""


def render(folder: Path) -> tuple[Manifest, ...]:
    """Return the manifests of a kustomization. Raises RenderError."""
    result = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RenderError(result.stderr.strip())
    return tuple(yaml.load_all(result.stdout, Loader=yaml.CSafeLoader))


@lru_cache
def rendered(name: str) -> tuple[Manifest, ...]:
    """Render a folder of `deploy/k8s` once per run."""
    return render(K8S / name)


def group_of(manifest: Manifest) -> str:
    """Return the API group; empty for the core one."""
    group, slash, _ = manifest["apiVersion"].rpartition("/")
    return group if slash else ""


def is_core(manifest: Manifest) -> bool:
    return group_of(manifest) in CORE_GROUPS


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of_kind(manifests: tuple[Manifest, ...], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def one(manifests: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    (found,) = [m for m in of_kind(manifests, kind) if m["metadata"]["name"] == name]
    return found


def workloads(manifests: tuple[Manifest, ...]) -> list[Manifest]:
    return of_kind(manifests, "Deployment", "StatefulSet", "DaemonSet", "Job")


def pod(workload: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def labels(workload: Manifest) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def containers(workload: Manifest) -> list[Mapping[str, Any]]:
    return [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]


def selects(selector: Mapping[str, Any], given: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches; an empty one matches everything."""
    exact = selector.get("matchLabels", {}).items() <= given.items()
    return exact and all(_expression(one, given) for one in selector.get("matchExpressions", []))


def _expression(expression: Mapping[str, Any], given: Mapping[str, str]) -> bool:
    value = given.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case other:
            raise NotImplementedError(other)


def settings_of(workload: Manifest, manifests: tuple[Manifest, ...]) -> dict[str, str]:
    """Return the environment that a workload's container gets from its manifests."""
    container = pod(workload)["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= one(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}


def documents(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every YAML document below a folder with its file."""
    for file in sorted(folder.rglob("*.yaml")):
        for document in yaml.load_all(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader):
            yield file, document
