"""Each shipped profile is checked by what will read it: Ray's launcher, shellcheck, Kubernetes' schemas, hadolint."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator import __version__
from orchestrator.engine.profile import KubeRayProfile, LauncherProfile, ReachedProfile, SlurmProfile
from orchestrator.engine.profiles import ProfileFile, read_profile

ROOT = Path(__file__).parents[2]
PROFILES = [read_profile(path) for path in sorted((ROOT / "cluster").glob("*.yaml"))]
BESIDE = [file.beside(name) for file in PROFILES for name in getattr(file.profile, "manifests", ())]
MANIFESTS = sorted({*BESIDE, ROOT / "cluster" / "kuberay" / "job.yaml"})
LOCK = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
KUBERNETES = "1.33"


def of_kind(kind: type) -> list[ProfileFile]:
    return [file for file in PROFILES if isinstance(file.profile, kind)]


def named(file: ProfileFile) -> str:
    return file.name


def tool(name: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).parent / name), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_there_is_a_profile_of_each_sort():
    assert {file.name for file in PROFILES} == {"local", "head", "ssh", "aws", "gcp", "slurm", "kuberay"}


@pytest.mark.parametrize("file", PROFILES, ids=named)
def test_a_header_says_what_a_profile_needs_how_it_is_used_and_what_it_was_checked_with(file: ProfileFile):
    header = "\n".join(line for line in file.path.read_text().splitlines() if line.startswith("#"))
    assert re.search(r"[Nn]eeds", header)
    assert re.search(rf"dnctl cluster status (my-cluster\.yaml|{file.name})\b", header)
    assert "Checked with" in header


def test_clusters_do_not_share_the_near_end_of_their_tunnels():
    addresses = [file.profile.address for file in of_kind(ReachedProfile) if isinstance(file.profile, ReachedProfile)]
    assert len(set(addresses)) == len(addresses)


def launcher_config(file: ProfileFile) -> dict[str, Any]:
    assert isinstance(file.profile, LauncherProfile)
    config: dict[str, Any] = yaml.safe_load(file.beside(file.profile.config).read_text())
    return config


@pytest.mark.parametrize("file", of_kind(LauncherProfile), ids=named)
def test_rays_launcher_takes_the_file(file: ProfileFile):
    validate_config(prepare_config(launcher_config(file)))


@pytest.mark.parametrize("file", of_kind(LauncherProfile), ids=named)
def test_launched_clusters_have_a_token_a_closed_dashboard_pinned_packages_and_shared_storage(file: ProfileFile):
    config = launcher_config(file)
    (head,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    (worker,) = [line for line in config["worker_start_ray_commands"] if "--address" in line]
    assert "RAY_AUTH_MODE=token RAY_enable_metrics_collection=0 " in head
    assert "RAY_AUTH_MODE=token RAY_enable_metrics_collection=0 " in worker
    assert "--dashboard-host=127.0.0.1" in head
    assert "AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1" in head
    assert "~/.ray/auth_token" in config["file_mounts"]
    setup = "\n".join(config["setup_commands"])
    assert (file.beside("x") / config["file_mounts"]["~/requirements.lock"]).resolve() == ROOT / "requirements.lock"
    assert f"uv=={LOCK['uv']} " in setup
    assert "--requirement ~/requirements.lock" in setup
    assert file.profile.storage is not None
    assert file.profile.storage in setup


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_clouds_have_spot_workers_that_come_and_go_and_a_head_that_stays(name: str):
    (file,) = [file for file in PROFILES if file.name == name]
    types = launcher_config(file)["available_node_types"]
    workers = {name: types[name] for name in types if name != "head"}
    assert not re.search(r"spot|preemptible", yaml.safe_dump(types["head"]), re.IGNORECASE)
    assert types["head"]["resources"] == {"CPU": 0}
    assert all(worker["min_workers"] == 0 < worker["max_workers"] for worker in workers.values())
    assert all(re.search(r"spot|SPOT", yaml.safe_dump(worker["node_config"])) for worker in workers.values())


@pytest.mark.parametrize("file", of_kind(SlurmProfile), ids=named)
def test_the_batch_script_is_clean_shell_and_asks_slurm_for_signal_and_requeue(file: ProfileFile):
    assert isinstance(file.profile, SlurmProfile)
    script = file.beside(file.profile.script)
    tool("shellcheck", str(script))
    text = script.read_text()
    assert re.search(r"^#SBATCH --requeue$", text, re.MULTILINE)
    assert re.search(r"^#SBATCH --signal=B:USR1@\d+$", text, re.MULTILINE)


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def pods(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(what it is, template) of all pods that a manifest describes."""
    spec = document["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    if "headGroupSpec" not in cluster:
        return []
    found = [("head", cluster["headGroupSpec"]["template"])]
    found += [("worker", group["template"]) for group in cluster["workerGroupSpecs"]]
    return found + ([("submitter", spec["submitterPodTemplate"])] if "submitterPodTemplate" in spec else [])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_takes_volume_and_pods(path: Path):
    for document in documents(path):
        if document["apiVersion"] == "v1":
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        for what, template in pods(document):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": what}, **template}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_pods_have_probes_limits_the_volume_and_no_privileges(name: str):
    (document,) = documents(ROOT / "cluster" / "kuberay" / name)
    assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    cluster = document["spec"].get("rayClusterSpec", document["spec"])
    assert cluster["rayVersion"] == LOCK["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    for what, template in pods(document):
        (container,) = template["spec"]["containers"]
        assert container["image"].endswith(f"/dnctl:{__version__}")
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        if what == "submitter":
            continue
        assert {"name": "RAY_enable_metrics_collection", "value": "0"} in container["env"]
        assert container["livenessProbe"]["httpGet"]
        assert container["readinessProbe"]["httpGet"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/mnt/dnctl", "/dev/shm"}
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in template["spec"]["volumes"][:1]]
        assert claims == ["dnctl-storage"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (what == "worker")


@pytest.mark.parametrize("name", ["cluster.yaml", "job.yaml"])
def test_ray_drains_a_worker_pod_within_its_grace_period(name: str):
    (document,) = documents(ROOT / "cluster" / "kuberay" / name)
    (template,) = [template for what, template in pods(document) if what == "worker"]
    variables = {variable["name"]: variable["value"] for variable in template["spec"]["containers"][0]["env"]}
    drained_s = float(variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert 60 <= drained_s <= template["spec"]["terminationGracePeriodSeconds"] - 10


def test_a_job_is_retried_and_goes_on_with_the_same_run():
    (document,) = documents(ROOT / "cluster" / "kuberay" / "job.yaml")
    assert document["spec"]["backoffLimit"] > 0
    assert document["spec"]["submissionMode"] == "K8sJobMode"
    assert " --name " in document["spec"]["entrypoint"]


def test_the_job_runs_the_pods_of_the_cluster():
    (cluster,) = documents(ROOT / "cluster" / "kuberay" / "cluster.yaml")
    (job,) = documents(ROOT / "cluster" / "kuberay" / "job.yaml")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_the_image_is_pinned_as_the_lock_is():
    tool("hadolint", str(ROOT / "Dockerfile"))
    text = (ROOT / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)\.\d+-", text, re.MULTILINE)
    assert f"--python-version {python}" in (ROOT / "Makefile").read_text(), "the lock is for another Python"
    assert project["requires-python"] == f">={python}"
    installs = re.findall(r"pip install (.*?)(?: \\)?$", text, re.MULTILINE)
    assert installs
    assert all("--constraint requirements.lock" in line for line in installs)
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    for requirement in project["dependencies"] + project["optional-dependencies"]["cuda130"]:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert name[0].replace(".", "-") in LOCK, f"{name[0]} has no version in requirements.lock"


def test_kuberay_is_told_of_all_its_manifests():
    (file,) = of_kind(KubeRayProfile)
    assert isinstance(file.profile, KubeRayProfile)
    kinds = [document["kind"] for name in file.profile.manifests for document in documents(file.beside(name))]
    assert kinds == ["PersistentVolumeClaim", "RayCluster"]
