"""Validators of manifests: Kubernetes' own schemas for its kinds, the reduced ones beside this file for others.

Strict: a field that the schema doesn't know is an error, where a cluster would drop it without a word.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate.utils as kubernetes
import yaml
from jsonschema_rs import Draft202012Validator, Registry

from .manifests import Manifest, group_of, is_core, title

CUSTOM = Path(__file__).with_name("custom_resources.yaml")
OLDEST = "1.30.0"
"""preStop's `sleep` is there from here on."""
NEWEST = kubernetes.all_versions()[-1]


def problems(manifest: Manifest, version: str = NEWEST) -> list[str]:
    """Return what a cluster of this version would refuse or drop, in words."""
    if is_core(manifest):
        validator = _core(manifest["apiVersion"], manifest["kind"], version)
    else:
        validator = _custom(f"{group_of(manifest)}/{manifest['kind']}")
    return [
        f"{title(manifest)}: {'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in validator.iter_errors(dict(manifest))
    ]


@lru_cache
def _core(api_version: str, kind: str, version: str) -> Draft202012Validator:
    group, slash, number = api_version.rpartition("/")
    name = f"{group.partition('.')[0]}-{number}" if slash else api_version
    schema = _schema_file(f"{kind.lower()}-{name}", version)
    return Draft202012Validator(schema, registry=_definitions(version))


@lru_cache
def _definitions(version: str) -> Registry:
    definitions = _schema_file("_definitions", version)
    return Registry([(definitions["$id"], definitions)])


def _schema_file(name: str, version: str) -> Any:
    return kubernetes.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{name}.json", version)


@lru_cache
def _custom(key: str) -> Draft202012Validator:
    known = yaml.safe_load(CUSTOM.read_text(encoding="utf-8"))
    if key not in known["kinds"]:
        raise LookupError(f"{CUSTOM.name} has no schema of {key}")
    return Draft202012Validator({"$defs": known["$defs"], **known["kinds"][key]}, validate_formats=True)
