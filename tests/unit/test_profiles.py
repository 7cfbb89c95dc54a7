"""Cluster profiles: every fault at once, with line, key and the nearest valid one; and what a profile comes to."""

from pathlib import Path

import pytest

from orchestrator.engine.clusters import named_cluster, profile_of
from orchestrator.engine.profiles import find_profile, read_profile
from orchestrator.errors import ClusterError, NotFoundError, ProfileError, UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def faults(folder: Path, text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        read_profile(write(folder, text), environment={})
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_all_faults_of_a_profile_are_reported_at_once_with_lines(tmp_path: Path):
    text = "kind: kuberay\nadress: http://head:8265\ntoken: ${NOWHERE}/token\nmanifests: []\ninterface: 5\n"
    lines = faults(tmp_path, text).splitlines()
    assert lines[0] == "The profile has 6 faults:"
    said = "\n".join(lines)
    assert 'mine.yaml:2: adress: unknown key; did you mean "address"?' in said
    assert "mine.yaml:3: token: found '${NOWHERE}/token', but NOWHERE is not set in the environment" in said
    assert "mine.yaml:4: manifests: found []; allowed: a list, each text" in said
    assert "mine.yaml:5: interface: found 5; allowed: text, or null" in said
    assert "address: not set" in said
    assert "service: not set" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found nothing"),
        ("kind: slrum\n", "did you mean 'slurm'? allowed: local, address, ray-up, slurm, kuberay"),
        ("kind: [a]\n", 'kind: found ["a"]; allowed: local'),
        ("storage: /runs\n", "kind: not set; allowed: local"),
        ("kind: local\nkind: slurm\n", "given twice"),
        ("kind: address\naddress: head:6379\n", "found 'head:6379'; allowed: the http:// address of a Ray dashboard"),
        ("kind: ray-up\naddress: http://a:1\nconfig: none.yaml\n", "config: found 'none.yaml', but there is no file"),
        ("kind: slurm\nscript: x.sbatch\nnodes: 4\n", "nodes: unknown key"),
        ("kind: local\n\tstorage: /runs\n", "mine.yaml:2: found a tab"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str, said: str):
    assert said in faults(tmp_path, text)


def test_a_profile_in_the_folder_cluster_goes_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert find_profile("aws").is_absolute()
    own = tmp_path / "cluster" / "aws.yaml"
    own.parent.mkdir()
    own.write_text("kind: local\n")
    assert find_profile("aws").resolve() == own


def test_a_name_that_is_no_profile_is_not_found_with_the_nearest(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"there is no cluster 'slrum': did you mean 'slurm'\?"):
        named_cluster("slrum")
    with pytest.raises(ClusterError, match="takes no jobs: give the http:// address"):
        named_cluster("ray://head:10001")
    with pytest.raises(UsageError, match="whoever keeps that cluster"):
        profile_of("http://head:8265")


def test_a_profile_names_address_token_storage_and_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SITE", "/site")
    text = "kind: address\naddress: http://head:8265/\ntoken: ${SITE}/token\nstorage: ${SITE}/runs\ninterface: ib0\n"
    path = write(tmp_path, text)
    cluster = named_cluster(str(path))
    assert cluster is not None
    assert (cluster.name, cluster.jobs_address) == (str(path), "http://head:8265")
    assert (cluster.token_path, cluster.interface, cluster.is_local) == (Path("/site/token"), "ib0", False)
    cluster.refuse_other_storage(Path("/site/runs"))
    cluster.refuse_other_storage(Path("/site/runs/mine"))
    with pytest.raises(UsageError, match="export DNCTL_STORAGE=/site/runs"):
        cluster.refuse_other_storage(Path("/home/me/runs"))


def test_what_is_named_goes_before_the_environment_and_that_before_where_a_run_was(monkeypatch: pytest.MonkeyPatch):
    def address(name: str | None, last: str | None) -> str | None:
        cluster = named_cluster(name, last=last)
        return cluster.jobs_address if cluster else None

    assert address(None, None) is None
    assert address(None, "http://last:1") == "http://last:1"
    monkeypatch.setenv("RAY_ADDRESS", "http://ray:1")
    assert address(None, "http://last:1") == "http://ray:1"
    monkeypatch.setenv("DNCTL_CLUSTER", "http://dnctl:1")
    assert address(None, "http://last:1") == "http://dnctl:1"
    assert address("http://named:1", "http://last:1") == "http://named:1"
    assert address("local", "http://last:1") is None
