"""Putting lines of text on a screen of a given size: cut, padded, one block beside another."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text


def fit(line: Text | str, width: int) -> Text:
    """A line of exactly `width` cells: cut with an ellipsis, or padded."""
    text = line.copy() if isinstance(line, Text) else Text(line)
    text.truncate(max(width, 0), overflow="ellipsis", pad=True)
    return text


def fit_block(lines: Sequence[Text | str], width: int, height: int) -> list[Text]:
    """Exactly `height` lines of `width` cells."""
    shown = [fit(line, width) for line in lines[:height]]
    return shown + [fit("", width) for _ in range(height - len(shown))]


def beside(*blocks: Sequence[Text]) -> list[Text]:
    """Blocks of equal height, whose lines are padded, next to each other with a space between."""
    return [Text(" ").join(row) for row in zip(*blocks, strict=True)]


def rule(title: Text | str, width: int, *, note: str = "") -> Text:
    """A line that begins a section: its title, a rule, and a note at the right end if there is room."""
    head = Text.assemble("── ", Text(title, style="bold") if isinstance(title, str) else title, " ")
    tail = f" {note} ──" if note and head.cell_len + len(note) + 6 <= width else ""
    head.append("─" * max(width - head.cell_len - len(tail), 0) + tail)
    return fit(head, width)


def spread(left: Text, right: str, width: int) -> Text:
    """A line with something at its right end, which gives way to what is at the left."""
    gap = width - left.cell_len - len(right)
    return fit(Text.assemble(left, " " * gap, right) if gap >= 2 else left, width)


def clock(at: float) -> str:
    """A moment as the local time of day; of one that no clock shows, dashes."""
    try:
        return datetime.fromtimestamp(at).strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def short_time(seconds: float) -> str:
    """A duration within a step in at most 7 characters: '12.3 ms', '1.25 s'."""
    if seconds < 0.9995:
        milliseconds = 1000 * seconds
        return f"{milliseconds:.1f} ms" if milliseconds < 99.95 else f"{milliseconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def plain(text: str) -> str:
    """A line of somebody's output without what would move the cursor or change colours."""
    line = text.rstrip("\r\n").rpartition("\r")[2].expandtabs(4)
    return "".join(character if character.isprintable() else "·" for character in line)
