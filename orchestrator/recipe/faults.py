"""What pydantic found wrong with a YAML file, in words: with line, key, what was found, and what is allowed there."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from orchestrator.recipe.document import Fault, Origin
from orchestrator.recipe.reference import Key


def explain_all(
    errors: list[ErrorDetails],
    values: dict[str, Any],
    keys: Mapping[str, Key],
    origins: Mapping[str, Origin],
    root: Origin,
) -> Iterator[Fault]:
    """A fault for each error.

    values: what was validated; keys: what its schema has, by dotted name; origins: where each key was written; root:
    where the whole begins.
    """
    for error in errors:
        key = _key_of(error, values, keys)
        section = key.rpartition(".")[0]
        if _is_of_another_kind(key, values, keys):
            continue  # keys were found where a plain value may stand, too; what is wrong with the keys is said apart
        match error["type"]:
            case "extra_forbidden":
                yield Fault(origins[key], key, f"unknown key; {_nearest(key, keys)}")
            case "missing" if key not in origins:
                yield Fault(origins.get(section, root), key, f"not set; allowed: {keys[key].allowed}")
            case "value_error":
                yield Fault(origins[key], key, str(error["ctx"]["error"]))
            case _:
                allowed = keys[key].allowed if key in keys else keys[section].each_allowed
                yield Fault(origins[key], key, f"found {show(lookup(values, key))}; allowed: {allowed}")


def list_faults(faults: Iterable[Fault], what: str) -> str:
    """All faults as one message; what: the file's kind, such as 'recipe'."""
    lines = [str(fault) for fault in sorted(faults, key=lambda fault: (fault.origin.line == 0, fault.origin))]
    if len(lines) == 1:
        return lines[0]
    return f"The {what} has {len(lines)} faults:\n" + "\n".join(f"  {line}" for line in lines)


def lookup(values: dict[str, Any], key: str) -> Any:
    """The value at a dotted key, None if there is none; the empty key is the whole."""
    current: Any = values
    for part in filter(None, key.split(".")):
        current = current.get(part) if isinstance(current, dict) else None
    return current


def show(value: Any) -> str:
    """A value of YAML as a message quotes it."""
    match value:
        case dict():
            return f"a section with {', '.join(value)}" if value else "an empty section"
        case tuple():
            return f"[{', '.join(map(show, value))}]"
        case float():
            return f"{value:g}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _key_of(error: ErrorDetails, values: dict[str, Any], keys: Mapping[str, Key]) -> str:
    """The dotted key that an error of pydantic is about, without list indices and names of union members."""
    path: list[str] = []
    current: Any = values
    for part in error["loc"]:
        if not isinstance(current, dict):
            break
        if part not in current and ".".join([*path, str(part)]) not in keys:
            continue  # the name of a union's member
        path.append(str(part))
        current = current.get(part)
    return ".".join(path)


def _is_of_another_kind(key: str, values: dict[str, Any], keys: Mapping[str, Key]) -> bool:
    known = keys.get(key)
    has_keys = any(other.startswith(f"{key}.") for other in keys)
    return known is not None and has_keys and not known.is_section and isinstance(lookup(values, key), dict)


def _nearest(key: str, keys: Mapping[str, Key]) -> str:
    """Which valid key may be meant by an unknown one, and which there are."""
    section, _, name = key.rpartition(".")
    here = [known.rpartition(".")[2] for known in keys if known.rpartition(".")[0] == section]
    elsewhere = [known for known in keys if known.rpartition(".")[2] == name]
    of_words = {word: known for known in reversed(here) for word in known.split("_")}
    near_word = [of_words[word] for word in difflib.get_close_matches(name, of_words, n=1)]
    matches = difflib.get_close_matches(name, here, n=1) or elsewhere[:1] or near_word
    hint = f'did you mean "{matches[0]}"? ' if matches else ""
    return f"{hint}allowed {f'in {section}' if section else 'here'}: {', '.join(here)}"
