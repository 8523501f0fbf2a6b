"""Base, components and overlays render, and a cluster knows every field of what they render."""

import os
import shutil

import pytest

from .manifests import K8S, RenderError, is_core, render, rendered, title
from .schemas import NEWEST, OLDEST, problems

OVERLAYS = sorted(f"overlays/{folder.name}" for folder in K8S.glob("overlays/*"))
COMPONENTS = sorted(folder.name for folder in K8S.glob("components/*"))
ALL = ["base", *OVERLAYS]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(name, version):
    found = [
        problem for manifest in rendered(name) if is_core(manifest) for problem in problems(manifest, version)
    ]
    assert found == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_operators_know_every_field(name):
    found = [
        problem for manifest in rendered(name) if not is_core(manifest) for problem in problems(manifest)
    ]
    assert found == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_can_be_laid_over_the_base_alone(name, tmp_path):
    here = os.path.relpath(K8S, tmp_path)
    text = f"resources: [{here}/base]\ncomponents: [{here}/components/{name}]\n"
    (tmp_path / "kustomization.yaml").write_text(text)
    alone = render(tmp_path)
    assert len(alone) > len(rendered("base"))
    assert [problem for manifest in alone for problem in problems(manifest)] == []


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_there_twice(name):
    titles = [title(manifest) for manifest in rendered(name)]
    assert len(titles) == len(set(titles))


def test_a_mistyped_field_is_found():
    deployment = next(manifest for manifest in rendered("base") if manifest["kind"] == "Deployment")
    assert problems({**deployment, "spec": {**deployment["spec"], "replica": 3}}) != []


def test_a_missing_file_is_found(tmp_path):
    broken = shutil.copytree(K8S / "base", tmp_path / "base")
    (broken / "every-pod.yaml").unlink()
    with pytest.raises(RenderError, match="every-pod"):
        render(broken)
