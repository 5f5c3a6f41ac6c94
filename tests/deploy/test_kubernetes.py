"""deploy/kubernetes is what a cluster takes, and sets nothing that the services do not know."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from feature_service.settings import FeatureSettings
from model_service.settings import ModelSettings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSION = "1.32"
"""Of Kubernetes: the oldest that is still maintained."""

Document = dict[str, Any]


def documents(folder: Path) -> list[Document]:
    """Returns all objects of a folder."""
    paths = [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in paths for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def pods(objects: list[Document]) -> Iterator[tuple[str, Document]]:
    """Yields the name and the pod of each thing that runs."""
    for each in objects:
        if each["kind"] == "Deployment":
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        if each["kind"] == "CronJob":
            yield each["metadata"]["name"], each["spec"]["jobTemplate"]["spec"]["template"]["spec"]


BASE = documents(FOLDER / "base")
NAMES = [f"{each['kind']}/{each['metadata']['name']}" for each in BASE]


@pytest.mark.parametrize("document", BASE, ids=NAMES)
def test_each_object_is_one_that_a_cluster_takes(document: Document) -> None:
    """By the schema of Kubernetes, in which an unknown field is an error."""
    kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_misspelt_field_is_found() -> None:
    """So that the test above can fail."""
    broken = json.loads(json.dumps(BASE[NAMES.index("Deployment/model-service")]))
    broken["spec"]["replicaz"] = 2

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_the_base_names_each_of_its_files() -> None:
    """A file that is not listed is not applied."""
    listed = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]

    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in (FOLDER / "base").iterdir())


def test_only_settings_that_exist_are_set() -> None:
    """A misspelt one would end the process at its start."""
    known = {*FeatureSettings.variables().values(), *ModelSettings.variables().values()}

    named = {
        variable["name"]
        for _, pod in pods([*BASE, *documents(FOLDER / "gpu")])
        for container in pod["containers"]
        for variable in container.get("env", [])
    }

    assert named
    assert named <= known


def reachable_by(labels: dict[str, str], namespace: dict[str, str] | None = None) -> set[tuple[str, int]]:
    """Returns the services and ports that a pod with these labels gets to, in our namespace or one with labels."""

    def names(selector: Document, found: dict[str, str]) -> bool:
        expressions = selector.get("matchExpressions", [])
        assert all(each["operator"] == "In" for each in expressions)
        return selector.get("matchLabels", {}).items() <= found.items() and all(
            found.get(each["key"]) in each["values"] for each in expressions
        )

    def is_named(source: Document) -> bool:
        if "namespaceSelector" in source:
            return namespace is not None and names(source["namespaceSelector"], namespace)
        return namespace is None and names(source["podSelector"], labels)

    return {
        (target["app.kubernetes.io/name"], port["port"])
        for policy in BASE
        if policy["kind"] == "NetworkPolicy"
        for rule in policy["spec"].get("ingress", [])
        if any(is_named(source) for source in rule["from"])
        for target in TARGETS
        if names(policy["spec"]["podSelector"], target)
        for port in rule["ports"]
    }


TARGETS = [each["spec"]["template"]["metadata"]["labels"] for each in BASE if each["kind"] == "Deployment"]


def test_nobody_gets_to_a_service_whom_no_policy_names() -> None:
    """One policy selects every pod and allows nothing."""
    closed = [each["spec"] for each in BASE if each["kind"] == "NetworkPolicy" and "ingress" not in each["spec"]]

    assert closed == [{"podSelector": {}, "policyTypes": ["Ingress"]}]
    assert reachable_by({}) == reachable_by({}, {}) == set()


@pytest.mark.parametrize(
    ("label", "ports"),
    [
        ("marquee.dev/caller", {("model-service", 50052)}),
        ("marquee.dev/writer", {("feature-service", 50051)}),
    ],
)
def test_callers_and_writers_get_to_their_service_only(label: str, ports: set[tuple[str, int]]) -> None:
    """Who asks for lists need not read what everybody watched; by the pod's label or by the namespace's."""
    assert reachable_by({label: "true"}) == reachable_by({}, {label: "true"}) == ports


def test_ours_get_where_they_need_to() -> None:
    """model_service and the trainer to feature_service, Prometheus to the pages of both; no other port is open."""
    for ours in ("model-service", "trainer"):
        assert reachable_by({"app.kubernetes.io/name": ours}) == {("feature-service", 50051)}
    assert reachable_by({}, {"kubernetes.io/metadata.name": "monitoring"}) >= {
        ("feature-service", 51051),
        ("model-service", 51052),
    }


def test_what_scales_and_what_stays_up_is_said_of_both_services() -> None:
    """An autoscaler and a disruption budget each, and a headless Service that callers balance over."""
    for name in ("feature-service", "model-service"):
        for kind in ("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service"):
            assert f"{kind}/{name}" in NAMES
        assert BASE[NAMES.index(f"Service/{name}")]["spec"]["clusterIP"] == "None"
    assert "CronJob/trainer" in NAMES


def test_nothing_runs_as_root_or_writes_to_its_image() -> None:
    """As the containers of the compose file."""
    for name, pod in pods(BASE):
        assert pod["securityContext"]["runAsNonRoot"], name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_who_leaves_has_time_to_finish_what_he_has_begun() -> None:
    """The pause before SIGTERM and the time to drain fit into the grace."""
    drain_s = FeatureSettings.model_fields["drain_timeout_s"].default
    for name, pod in pods(BASE):
        if name != "trainer":
            assert pod["terminationGracePeriodSeconds"] >= 5 + drain_s + 10


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_overlay_for_gpus_adds_to_the_base() -> None:
    """One GPU a replica, on nodes that have one, and everything else as it was."""
    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "gpu")], capture_output=True, text=True, check=True
    ).stdout
    objects = list(yaml.safe_load_all(built))
    pod = dict(pods(objects))["model-service"]

    for document in objects:
        kubernetes_validate.validate(document, VERSION, strict=True)
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}
    assert pod["containers"][0]["image"] == "marquee/model_service:local-cuda"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {"name": "MODEL_DEVICE", "value": "cuda"} in pod["containers"][0]["env"]
    assert len(objects) == len(BASE)
