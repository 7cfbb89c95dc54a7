"""What a cluster says over HTTP, and what a person is told when it can't be used."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.engine.cluster_state import Amount, Node, in_words, read_cluster, why_it_waits
from orchestrator.engine.clusters import Cluster
from orchestrator.engine.dashboard import Dashboard, Token, find_token, versions_here
from orchestrator.engine.departure import living_nodes, send_away
from orchestrator.errors import ClusterError, DnctlError, RefusedError

HERE = versions_here()
METADATA = {"data": {"rayVersion": HERE.ray, "pythonVersion": HERE.python}}


@contextmanager
def ray_head(answers: dict[str, Any], *, token: str | None = None) -> Iterator[str]:
    """The address of a server that answers as Ray's dashboard does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if token is not None and self.headers["Authorization"] != f"Bearer {token}":
                self.send_error(403 if self.headers["Authorization"] else 401)
                return
            answer = answers.get(self.path.partition("?")[0])
            if answer is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def dashboard(address: str, token: str | None = None) -> Dashboard:
    return Dashboard(address=address, token=Token(text=token, source="a file") if token else None, timeout_s=5)


def test_a_cluster_that_does_not_answer_is_unreachable():
    with pytest.raises(
        ClusterError, match=r"no cluster answers at http://127\.0\.0\.1:9: Connection refused"
    ) as caught:
        dashboard("http://127.0.0.1:9").versions()
    assert caught.value.exit_code == 4
    assert "tunnel" in str(caught.value)


def test_no_token_and_a_wrong_one_are_told_apart():
    with ray_head({"/api/v0/cluster_metadata": METADATA}, token="right") as address:
        with pytest.raises(RefusedError, match="wants its token, and there is none here"):
            dashboard(address).versions()
        with pytest.raises(RefusedError, match="refuses the token of a file") as caught:
            dashboard(address, "wrong").versions()
        assert "wrong" not in str(caught.value)
        assert dashboard(address, "right").versions() == HERE


@pytest.mark.parametrize("answer", [b"<html>", [], {"data": {}}, None])
def test_what_is_no_dashboard_is_called_that(answer: Any):
    with (
        ray_head({"/api/v0/cluster_metadata": answer}) as address,
        pytest.raises(ClusterError, match="no Ray dashboard"),
    ):
        dashboard(address).versions()


@pytest.mark.parametrize(
    ("ray", "python", "fits"),
    [
        (HERE.ray, HERE.python, True),
        (HERE.ray.rpartition(".")[0] + ".99", HERE.python.rpartition(".")[0] + ".99", True),
        ("2.44.1", HERE.python, False),
        (HERE.ray, "3.9.21", False),
    ],
)
def test_versions_that_differ_are_found_before_anything_is_sent(ray: str, python: str, fits: bool):
    with ray_head({"/api/v0/cluster_metadata": {"data": {"rayVersion": ray, "pythonVersion": python}}}) as address:
        if fits:
            dashboard(address).refuse_other_versions()
            return
        with pytest.raises(ClusterError) as caught:
            dashboard(address).refuse_other_versions()
    assert f"has Ray {ray} and Python {python}, this machine has {HERE}" in str(caught.value)
    assert "requirements.lock" in str(caught.value)


def test_a_token_is_looked_for_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert find_token(None) is None
    usual = tmp_path / ".ray" / "auth_token"
    usual.parent.mkdir()
    usual.write_text("usual\n")
    assert find_token(None) == Token(text="usual", source=str(usual))
    named = tmp_path / "named"
    named.write_text("named")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    assert find_token(None) == Token(text="named", source=str(named))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert find_token(None) == Token(text="given", source="RAY_AUTH_TOKEN")
    assert find_token(usual) == Token(text="usual", source=str(usual))
    assert "usual" not in repr(Token(text="usual", source="somewhere"))
    with pytest.raises(ClusterError, match="No such file"):
        find_token(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(ClusterError, match="is empty"):
        find_token(tmp_path / "empty")


def _node(name: str, *, cpus: tuple[float, float], gpus: tuple[float, float] = (0, 0)) -> Node:
    return Node(
        address=name,
        is_head=False,
        cpus=Amount(total=cpus[0], used=cpus[1]),
        gpus=Amount(total=gpus[0], used=gpus[1]),
        gpu_type="L4" if gpus[0] else None,
    )


@pytest.mark.parametrize(
    ("bundles", "why"),
    [
        ([{"GPU": 1, "CPU": 1}] * 8, "3 of 8 GPUs are free"),
        ([{"GPU": 8}], "no node has 8 GPUs, the largest has 4"),
        ([{"GPU": 1}] * 9, "the cluster has 8 GPUs in all"),
        ([{"CPU": 16}] * 2, "20 of 32 CPUs are free"),
        ([{"GPU": 2}], "what is free is spread over nodes so that it doesn't fit"),
    ],
)
def test_why_something_waits_is_said_in_numbers(bundles: list[dict[str, float]], why: str):
    nodes = [_node("a", cpus=(16, 4), gpus=(4, 3)), _node("b", cpus=(16, 8), gpus=(4, 2))]
    assert why_it_waits(bundles, nodes, ()) == why
    assert why_it_waits(bundles, nodes, ("2 × gpu",)) == f"{why}; on its way: 2 × gpu"


def test_what_is_wanted_is_said_in_words():
    assert in_words([{"GPU": 1, "CPU": 8}] * 2) == "2 × (1 GPU, 8 CPU)"
    assert in_words([{"GPU": 1, "CPU": 0.001}, {"CPU": 1}]) == "1 × (1 GPU) and 1 × (1 CPU)"


def test_a_cluster_is_read_with_its_nodes_gpus_runs_and_what_waits():
    def node(number: int, state: str, **resources: float) -> dict[str, Any]:
        row = {"node_id": f"n{number}", "node_ip": f"10.0.0.{number}", "is_head_node": number == 1, "state": state}
        return {**row, "resources_total": resources}

    def job(number: int, status: str, run: str | None, *, started: bool = True) -> dict[str, Any]:
        row = {"job_id": f"0{number}" if started else None, "submission_id": f"s{number}", "status": status}
        return {**row, "metadata": {"dnctl_run": run} if run else {}, "message": None if started else "queued"}

    nodes = [
        node(2, "ALIVE", **{"CPU": 48.0, "GPU": 4.0, "accelerator_type:L4": 1.0}),
        node(1, "ALIVE", CPU=4.0),
        node(3, "DEAD", CPU=9.0),
    ]
    status = {
        "autoscalerReport": {
            "pendingLaunches": {"gpu": 2},
            "pendingNodes": [["10.0.0.4", "gpu", "setting-up"]],
            "failedNodes": [["10.0.0.5", "gpu"]],
        },
        "loadMetricsReport": {"usageByNode": {"n2": {"GPU": [3.0, 4.0], "CPU": [3.0, 48.0]}}},
    }
    jobs = [
        job(1, "RUNNING", "big"),
        job(2, "SUCCEEDED", "old"),
        job(3, "PENDING", "new", started=False),
        job(4, "RUNNING", None),
    ]
    bundle = {"unit_resources": {"GPU": 1.0, "CPU": 8.0}, "node_id": ""}
    groups = [
        {"state": "PENDING", "creator_job_id": "01", "bundles": [bundle, bundle]},
        {"state": "CREATED", "creator_job_id": "01", "bundles": [bundle]},
    ]
    answers = {
        "/api/v0/cluster_metadata": METADATA,
        "/api/cluster_status": {"data": {"clusterStatus": status}},
        "/api/v0/nodes": {"data": {"result": {"result": nodes}}},
        "/api/v0/placement_groups": {"data": {"result": {"result": groups}}},
        "/api/jobs/": jobs,
    }
    with ray_head(answers) as address:
        state = read_cluster(dashboard(address))
    assert [(node.address, node.is_head) for node in state.nodes] == [("10.0.0.1", True), ("10.0.0.2", False)]
    assert state.gpus_by_type() == {"L4": Amount(total=4.0, used=3.0)}
    assert state.cpus() == Amount(total=52.0, used=3.0)
    assert state.runs == ("big", "new")
    assert state.coming == ("2 × gpu", "gpu 10.0.0.4 (setting-up)")
    assert state.failed == ("10.0.0.5: gpu",)
    group, driver = state.waiting
    assert (group.run, group.wants) == ("big", "2 × (1 GPU, 8 CPU)")
    assert group.why == "1 of 4 GPUs are free; on its way: 2 × gpu, gpu 10.0.0.4 (setting-up)"
    assert (driver.run, driver.why) == ("new", "queued")


def _summary(*nodes: tuple[str, str, str, bool, str]) -> dict[str, Any]:
    def row(node: str, host: str, address: str, is_head: bool, state: str) -> dict[str, Any]:
        of_ray = {"nodeId": node, "nodeManagerHostname": host, "nodeManagerAddress": address}
        return {"hostname": host, "raylet": {**of_ray, "isHeadNode": is_head, "state": state}}

    return {"data": {"summary": [row(*node) for node in nodes]}}


NODES = _summary(
    ("b" * 56, "gpu-1.example", "10.0.0.2", False, "ALIVE"),
    ("ab" * 28, "head.example", "10.0.0.1", True, "ALIVE"),
    ("ac" * 28, "gpu-2.example", "10.0.0.3", False, "ALIVE"),
    ("abab" + "d" * 52, "gpu-2.example", "10.0.0.3", False, "ALIVE"),
    ("ababab" + "e" * 50, "gpu-4.example", "10.0.0.4", False, "ALIVE"),
    ("f" * 56, "gpu-1.example", "10.0.0.2", False, "DEAD"),
)


@pytest.mark.parametrize("name", ["gpu-1.example", "gpu-1", "10.0.0.2", "b" * 56, "bbbbbb"])
def test_a_node_is_called_by_host_address_or_id(name: str):
    with ray_head({"/nodes": NODES}) as address:
        nodes = living_nodes(dashboard(address))
    assert [str(node) for node in nodes if node.is_called(name)] == ["gpu-1.example (10.0.0.2)"]
    assert str(nodes[0]) == "head.example (10.0.0.1), the head"


@pytest.mark.parametrize(
    ("name", "exit_code", "message"),
    [
        ("gpu-3", 3, r"has no node 'gpu-3'; its nodes are head.example \(10.0.0.1\), the head: abab.*; gpu-1.example"),
        ("b", 3, "has no node 'b'"),
        ("10.0.0.1", 2, r"head.example \(10.0.0.1\), the head, can't be sent away, since the cluster ends with it"),
        ("ababab", 2, "'ababab' may be head.example .* or gpu-4.example .*: give more of its id"),
    ],
)
def test_a_name_of_no_node_of_several_or_of_the_head_sends_nobody_away(name: str, exit_code: int, message: str):
    with ray_head({"/nodes": NODES}) as address, pytest.raises(DnctlError, match=message) as caught:
        send_away(Cluster(name=address, jobs_address=address), name, deadline_s=None)
    assert caught.value.exit_code == exit_code


def test_a_dashboard_that_names_its_nodes_otherwise_is_an_error_that_says_so():
    with ray_head({"/nodes": {"data": {"summary": [{}]}}}) as address, pytest.raises(ClusterError, match="can't read"):
        living_nodes(dashboard(address))
