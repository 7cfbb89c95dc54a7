"""How clusters look on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from orchestrator.engine.cluster_state import Amount, ClusterState
    from orchestrator.engine.slurm_state import SlurmState
    from orchestrator.engine.survey import Entry


def render_survey(entries: Sequence["Entry"]) -> RenderableType:
    """A line for each profile."""
    table = _table("profile", "kind", "is", "where")
    for entry in entries:
        style = {"up": "green", "down": "dim"}.get(entry.state, "bold red")
        table.add_row(Text(entry.name), entry.kind or "–", Text(entry.state, style=style), Text(entry.where))
    return Group(table, Text("see one: dnctl cluster status NAME   bring it up: dnctl cluster up NAME", style="dim"))


def render_cluster(state: "ClusterState") -> RenderableType:
    """Versions, nodes with what is free, what waits."""
    parts: list[RenderableType] = [Text.assemble((state.address, "bold"), f"  {state.versions}")]
    parts += [Text(_free(state)), "", _nodes(state)] if state.nodes else [Text("No node has joined yet.")]
    if state.runs:
        parts += ["", Text("runs here: " + ", ".join(state.runs))]
    if state.waiting:
        waiting = _table("waiting", "wants", "why")
        for item in state.waiting:
            waiting.add_row(Text(item.run or "not dnctl's"), item.wants, item.why)
        parts += ["", waiting]
    if state.coming:
        parts += ["", Text("on its way: " + ", ".join(state.coming))]
    if state.failed:
        parts += ["", Text("failed: " + ", ".join(state.failed), style="red")]
    return Group(*parts)


def _free(state: "ClusterState") -> str:
    gpus = [f"{_share(amount)} {name}" for name, amount in state.gpus_by_type().items()]
    return "free: " + ", ".join([*(gpus or ["no GPUs"]), f"{_share(state.cpus())} CPU cores"])


def _share(amount: "Amount") -> str:
    """'3 of 8'."""
    return f"{amount.free:.4g} of {amount.total:g}"


def _nodes(state: "ClusterState") -> Table:
    table = _table("node", "GPUs free", "type", "cores free")
    for node in state.nodes:
        table.add_row(
            f"{node.address}{' (head)' if node.is_head else ''}",
            _share(node.gpus) if node.gpus.total else "–",
            node.gpu_type or "–",
            _share(node.cpus),
        )
    return table


def render_slurm(state: "SlurmState") -> RenderableType:
    """Partitions, and our jobs."""
    partitions = _table("partition", "state", "nodes", "cores each", "GPUs each", "time limit")
    for part in state.partitions:
        gpus = "–" if part.gpus_per_node == "(null)" else part.gpus_per_node
        partitions.add_row(part.name, part.state, str(part.num_nodes), part.cpus_per_node, gpus, part.time_limit)
    parts: list[RenderableType] = [Text(f"Slurm {state.version}", style="bold"), "", partitions]
    if state.runs:
        runs = _table("job", "run", "state", "where, or why it waits")
        for run in state.runs:
            runs.add_row(run.job, Text(run.name), run.state, run.reason)
        parts += ["", runs]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
