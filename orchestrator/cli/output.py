"""What every command prints with: results on stdout, everything else on stderr."""

import json
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]


@cache
def console() -> "Console":
    """The terminal, or the file, that is stdout. Importing rich takes a while, so it is done at the first use."""
    from rich.console import Console

    return Console(highlight=False)


@cache
def stderr() -> "Console":
    """The terminal, or the file, that is stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Write one JSON document to stdout, keys in the order given."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def human_bytes(num_bytes: float) -> str:
    """A size for people, in binary units: 1536 is '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def human_time(seconds: float) -> str:
    """A duration for people: '42 s', '3 min 05 s', '2 h 14 min', '3 d 04 h'."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 1:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if hours < 1:
        return f"{minutes} min {whole % 60:02d} s"
    if days < 1:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24:02d} h"
