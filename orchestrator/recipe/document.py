"""YAML text as a tree of values that know where they were written.

YAML 1.2: `1e-4` is a number and `no` is text. Nothing is constructed but text, numbers, booleans, null, lists and
mappings. Duplicate keys, foreign tags and values that contain themselves are faults.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML, MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.error import MarkedYAMLError, YAMLError

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a value was written: a file and its line, or an override, which has no line (0)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a recipe; `key` is dotted, and empty where the fault has no key."""

    origin: Origin
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.key}: {self.message}" if self.key else f"{self.origin}: {self.message}"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where its key was written."""

    origin: Origin
    value: "Scalar | Mapping[str, Node] | tuple[Node, ...]"

    def plain(self) -> Any:
        """The value with dicts for mappings and tuples for lists."""
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, tuple):
            return tuple(node.plain() for node in self.value)
        return self.value

    def merged_with(self, other: "Node") -> "Node":
        """This tree with the other's values in place of its own wherever the other has any."""
        if not (isinstance(self.value, Mapping) and isinstance(other.value, Mapping)):
            return other
        ours, theirs = self.value, other.value
        both = {key: ours[key].merged_with(theirs[key]) if key in ours else theirs[key] for key in theirs}
        return replace(self, value={**ours, **both})

    def without(self, key: str) -> "Node":
        """This mapping without one of its keys."""
        assert isinstance(self.value, Mapping)
        return replace(self, value={name: node for name, node in self.value.items() if name != key})

    def origins(self, prefix: str = "") -> Iterator[tuple[str, Origin]]:
        """(dotted key, origin) of each key below this one."""
        if isinstance(self.value, Mapping):
            for key, node in self.value.items():
                yield prefix + key, node.origin
                yield from node.origins(f"{prefix}{key}.")


def read_yaml(text: str, source: str) -> tuple[Node | None, list[Fault]]:
    """The value that `text` holds, with lines counted from 1, and what is wrong with it; None if it doesn't parse."""
    reader = _Reader(source)
    return reader.read(text), reader.faults


def override_node(override: str, key: str, text: str) -> tuple[Node | None, list[Fault]]:
    """A tree with the one dotted key, and the value that the YAML `text` holds; `override` is what was typed."""
    origin = Origin(override)
    value, faults = read_yaml(text, override)
    faults = [replace(fault, origin=origin, key=fault.key or key) for fault in faults]
    if value is None:
        return None, faults
    node = _placed(value, origin)
    for part in reversed(key.split(".")):
        node = Node(origin, {part: node})
    return node, faults


def _placed(node: Node, origin: Origin) -> Node:
    if isinstance(node.value, Mapping):
        return Node(origin, {key: _placed(child, origin) for key, child in node.value.items()})
    if isinstance(node.value, tuple):
        return Node(origin, tuple(_placed(child, origin) for child in node.value))
    return Node(origin, node.value)


@dataclass(slots=True)
class _Reader:
    source: str
    faults: list[Fault] = field(default_factory=list)
    _open: list[int] = field(default_factory=list)

    def read(self, text: str) -> Node | None:
        start = Origin(self.source, 1)
        try:
            root = YAML(typ="safe", pure=True).compose(text)
        except MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else 0
            message = _explain(error, text.splitlines()[line : line + 1])
            self.faults.append(Fault(Origin(self.source, line + 1), "", message))
            return None
        except YAMLError as error:
            self.faults.append(Fault(start, "", f"not YAML: {' '.join(str(error).split())}"))
            return None
        return self._node(root, start, "") if root is not None else Node(start, None)

    def _node(self, node: Any, origin: Origin, key: str) -> Node:
        if id(node) in self._open:
            self.faults.append(Fault(origin, key, "the value contains itself"))
            return Node(origin, None)
        self._open.append(id(node))
        value: Any
        match node:
            case MappingNode():
                value = self._mapping(node, key)
            case SequenceNode():
                value = tuple(self._node(item, self._origin(item), key) for item in node.value)
            case _:
                value = self._scalar(node, origin, key)
        self._open.pop()
        return Node(origin, value)

    def _mapping(self, node: MappingNode, prefix: str) -> dict[str, Node]:
        values: dict[str, Node] = {}
        for key_node, value_node in node.value:
            origin = self._origin(key_node)
            if not isinstance(key_node, ScalarNode):
                self.faults.append(Fault(origin, prefix, "found a list or mapping as a key; allowed: plain text"))
                continue
            name = str(key_node.value)
            key = f"{prefix}.{name}" if prefix else name
            if name in values:
                first = values[name].origin.line
                self.faults.append(Fault(origin, key, f"given twice, first in line {first}; remove one of them"))
                continue
            values[name] = self._node(value_node, origin, key)
        return values

    def _scalar(self, node: ScalarNode, origin: Origin, key: str) -> Scalar:
        text: str = node.value
        match str(node.tag).removeprefix("tag:yaml.org,2002:"):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return _integer(text)
            case "float":
                return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
            case "str" | "timestamp":
                return text
            case tag:
                self.faults.append(Fault(origin, key, f"found the YAML tag {tag}; recipes have none: remove it"))
                return text

    def _origin(self, node: Any) -> Origin:
        return Origin(self.source, node.start_mark.line + 1)


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 0) if digits.lstrip("+-").lower().startswith(("0x", "0o")) else int(digits)


def _explain(error: MarkedYAMLError, lines: list[str]) -> str:
    problem = " ".join(filter(None, (error.context, error.problem)))
    if any("\t" in line for line in lines) and "\\t" in problem:
        return "found a tab; YAML is indented with spaces alone: replace it"
    return f"not YAML: {problem}"
