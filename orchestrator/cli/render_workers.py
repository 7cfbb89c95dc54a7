"""Workers and hosts as tables: what each does, and what it uses of memory and GPU."""

from collections.abc import Sequence

from rich.text import Text

from orchestrator.cli.output import human_bytes
from orchestrator.cli.screen import fit, fit_block, rule, short_time
from orchestrator.monitor.view import RunView, doing, nodes
from orchestrator.run.workers import Workers

_WORKER_COLUMNS = ("rank", "host", "does", "data", "compute", "comm.", "memory", "GPU", "GPU memory")
_NODE_COLUMNS = ("host", "workers", "memory", "GPUs", "used", "GPU memory")
_STRAGGLER_STYLE = "bold yellow"


def render_workers(view: RunView, *, width: int, height: int, or_hosts: bool = False) -> list[Text]:
    """A line a worker, those that are slow first. At most `height` lines.

    or_hosts: where not all workers fit, show a line a host instead.
    """
    workers = view.workers
    if workers is None:
        return [rule("workers", width), fit("no figures of single workers yet", width)][:height]
    if or_hosts and len(set(workers.host)) < len(workers.host) > height - 2:
        return render_nodes(view, width=width, height=height)
    return _workers_table(view, workers, width=width, height=height)


def render_crew(view: RunView, *, width: int, height: int) -> Text:
    """All hosts and workers on a screen of their own."""
    if view.workers is None:
        lines = render_workers(view, width=width, height=height)
    else:
        hosts = render_nodes(view, width=width, height=max(height // 3, 4))
        lines = [*hosts, *_workers_table(view, view.workers, width=width, height=height - len(hosts))]
    return Text("\n").join(fit_block(lines, width, height))


def _workers_table(view: RunView, workers: Workers, *, width: int, height: int) -> list[Text]:
    """A title, a heading, and a line a worker, as many as fit, those that are slow first."""
    slow = {straggler.rank for straggler in workers.stragglers}
    order = sorted(range(len(workers.host)), key=lambda rank: (rank not in slow, rank))
    num_shown = height - 2 if len(order) <= height - 2 else height - 3
    activity = view.status.progress.activity if view.status.progress is not None else "starting"
    rows = [_worker_cells(workers, rank, activity) for rank in order[: max(num_shown, 0)]]
    styles = [_STRAGGLER_STYLE if rank in slow else "" for rank in order]
    lines = [rule("workers", width, note=f"seconds a step, as of step {workers.step}")]
    lines += _table(_WORKER_COLUMNS, rows, styles, width, num_left=3)
    if len(order) > len(rows):
        lines.append(fit(f"… and {len(order) - len(rows)} more", width))
    return lines[:height]


def _worker_cells(workers: Workers, rank: int, activity: str) -> tuple[str, ...]:
    is_slow = any(straggler.rank == rank for straggler in workers.stragglers)
    gpu_percent, memory_bytes = workers.gpu_utilization_percent[rank], workers.process_memory_bytes[rank]
    return (
        f"{rank}",
        workers.host[rank],
        ("SLOW: " if is_slow else "") + doing(workers, rank, activity),
        short_time(workers.data_s[rank]),
        short_time(workers.compute_s[rank]),
        short_time(workers.communication_s[rank]),
        "–" if memory_bytes is None else human_bytes(memory_bytes),
        "–" if gpu_percent is None else f"{gpu_percent:.0f} %",
        _of(workers.gpu_memory_used_bytes[rank], workers.gpu_memory_bytes[rank]),
    )


def render_nodes(view: RunView, *, width: int, height: int) -> list[Text]:
    """A title, a heading, and a line a host, as many as fit."""
    if view.workers is None or height < 3:
        return []
    slow = {straggler.host for straggler in view.workers.stragglers}
    found = sorted(nodes(view.workers), key=lambda node: node.host not in slow)
    num_shown = height - 2 if len(found) <= height - 2 else height - 3
    rows = [
        (
            node.host,
            str(len(node.ranks)),
            _of(node.memory_used_bytes, node.memory_bytes),
            str(node.num_gpus),
            "–" if node.gpu_utilization_percent is None else f"{node.gpu_utilization_percent:.0f} %",
            _of(node.gpu_memory_used_bytes, node.gpu_memory_bytes),
        )
        for node in found[:num_shown]
    ]
    styles = [_STRAGGLER_STYLE if node.host in slow else "" for node in found]
    num_workers = len(view.workers.host)
    note = f"{num_workers} {'worker' if num_workers == 1 else 'workers'} on {len(found)}"
    lines = [rule("hosts", width, note=note)]
    lines += _table(_NODE_COLUMNS, rows, styles, width, num_left=1)
    if len(found) > len(rows):
        lines.append(fit(f"… and {len(found) - len(rows)} more", width))
    return lines


def _of(used: int | None, total: int | None) -> str:
    """'5.1/23.5 GiB', or a dash."""
    if used is None or not total:
        return "–"
    return f"{used / 2**30:.1f}/{total / 2**30:.1f} GiB"


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str], width: int, *, num_left: int
) -> list[Text]:
    """Lines with columns as wide as they must be; `num_left` of them text, the others numbers that end flush."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    lines = []
    for row, style in zip([columns, *rows], ["dim", *styles], strict=False):
        cells = [
            cell.ljust(size) if index < num_left else cell.rjust(size)
            for index, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(fit(Text("  ".join(cells), style=style), width))
    return lines
