"""Validators of manifests: Kubernetes' own schemas for its kinds, the reduced ones beside this file for others.

Strict: a field that the schema doesn't know is an error, where a cluster would drop it without a word.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate.utils as kubernetes
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from .manifests import Manifest, group_of, is_core, title

CUSTOM = Path(__file__).with_name("custom_resources.yaml")
OLDEST = "1.30.0"
"""preStop's `sleep` is there from here on."""
NEWEST = kubernetes.all_versions()[-1]


def problems(manifest: Manifest, version: str = NEWEST) -> list[str]:
    """Return what a cluster of this version would refuse or drop, in words."""
    validator = (
        _core(manifest, version) if is_core(manifest) else _custom(group_of(manifest), manifest["kind"])
    )
    return [
        f"{title(manifest)}: {error.json_path}: {error.message}" for error in validator.iter_errors(manifest)
    ]


def _core(manifest: Manifest, version: str) -> Draft202012Validator:
    kind, api_version = manifest["kind"].lower(), manifest["apiVersion"]
    group, slash, number = api_version.rpartition("/")
    name = f"{group.partition('.')[0]}-{number}" if slash else api_version
    return _validator(f"kubernetes-json-schema/v{version}-local-strict/{kind}-{name}.json", version)


@lru_cache
def _validator(file: str, version: str) -> Draft202012Validator:
    registry: Registry[Any] = Resource.from_contents(_definitions(version)) @ Registry()
    schema = kubernetes.schema_contents(file, version)
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ registry)


@lru_cache
def _definitions(version: str) -> Any:
    file = f"kubernetes-json-schema/v{version}-local-strict/_definitions.json"
    return kubernetes.schema_contents(file, version)


@lru_cache
def _custom(group: str, kind: str) -> Draft202012Validator:
    known = yaml.safe_load(CUSTOM.read_text(encoding="utf-8"))
    key = f"{group}/{kind}"
    schema = known["kinds"].get(key)
    if schema is None:
        raise LookupError(f"{CUSTOM.name} has no schema of {key}")
    return Draft202012Validator({"$defs": known["$defs"], **schema})
