"""From a tree of values to a Recipe, or to everything that is wrong with it."""

import copy
import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.recipe.checks import contradictions
from orchestrator.recipe.document import Fault, Node, Origin
from orchestrator.recipe.reference import recipe_keys
from orchestrator.recipe.schema import Recipe


def validate(tree: Node, environment: Mapping[str, str]) -> tuple[Recipe | None, list[Fault]]:
    """The recipe that the tree describes, None if it has faults, and all its faults.

    environment: what ${VAR} in paths is replaced from.
    """
    values = tree.plain()
    if not isinstance(values, dict):
        found = "found nothing" if values is None else f"found {_show(values)}"
        return None, [Fault(tree.origin, "", f"{found}; allowed: keys and values, such as `seed: 0`")]
    origins = dict(tree.origins())
    recipe, errors = _build(values, environment)
    faults = {fault.key: fault for fault in _explain_all(errors, values, origins, tree.origin)}
    if recipe is None:  # what is valid is checked all the same, with examples in place of the rest
        recipe, _ = _build(_repaired(values, set(faults)), environment)
    for contradiction in contradictions(recipe) if recipe else ():
        if not any(_touches(key, faulty) for key in contradiction.keys for faulty in faults):
            key = contradiction.keys[0]
            origin = next((origins[k] for k in contradiction.keys if k in origins), tree.origin)
            faults[key] = Fault(origins.get(key, origin), key, contradiction.message)
    located = recipe.with_origins({key: str(origin) for key, origin in origins.items()}) if recipe else None
    return (None if faults else located), list(faults.values())


def _build(values: dict[str, Any], environment: Mapping[str, str]) -> tuple[Recipe | None, list[ErrorDetails]]:
    try:
        return Recipe.model_validate(values, context=environment), []
    except ValidationError as error:
        return None, error.errors()


def _explain_all(
    errors: list[ErrorDetails], values: dict[str, Any], origins: Mapping[str, Origin], root: Origin
) -> Iterator[Fault]:
    for error in errors:
        key = _key_of(error, values)
        section = key.rpartition(".")[0]
        match error["type"]:
            case "extra_forbidden":
                yield Fault(origins[key], key, f"unknown key; {_nearest(key)}")
            case "missing" if key not in origins:
                yield Fault(origins.get(section, root), key, f"not set; allowed: {recipe_keys()[key].allowed}")
            case "value_error":
                yield Fault(origins[key], key, str(error["ctx"]["error"]))
            case _:
                found, allowed = _show(_lookup(values, key)), recipe_keys()[key].allowed
                yield Fault(origins[key], key, f"found {found}; allowed: {allowed}")


def _key_of(error: ErrorDetails, values: dict[str, Any]) -> str:
    """The dotted key that an error of pydantic is about, without list indices and names of union members."""
    path: list[str] = []
    current: Any = values
    for part in error["loc"]:
        if not isinstance(current, dict):
            break
        path.append(str(part))
        current = current.get(part)
    return ".".join(path)


def _lookup(values: dict[str, Any], key: str) -> Any:
    """The value at a dotted key, None if there is none; the empty key is the whole."""
    current: Any = values
    for part in filter(None, key.split(".")):
        current = current.get(part) if isinstance(current, dict) else None
    return current


def _nearest(key: str) -> str:
    """Which valid key may be meant by an unknown one, and which there are."""
    section, _, name = key.rpartition(".")
    here = [known.rpartition(".")[2] for known in recipe_keys() if known.rpartition(".")[0] == section]
    elsewhere = [known for known in recipe_keys() if known.rpartition(".")[2] == name]
    matches = difflib.get_close_matches(name, here, n=1) or elsewhere[:1]
    hint = f'did you mean "{matches[0]}"? ' if matches else ""
    return f"{hint}allowed {f'in {section}' if section else 'here'}: {', '.join(here)}"


def _repaired(values: dict[str, Any], faulty: set[str]) -> dict[str, Any]:
    """The values without the faulty ones, and with examples of what is then missing."""
    repaired = copy.deepcopy(values)
    for key in faulty:
        section, _, name = key.rpartition(".")
        _lookup(repaired, section).pop(name, None)
    for known in recipe_keys().values():
        section, _, name = known.key.rpartition(".")
        parent = _lookup(repaired, section)
        if known.is_required and isinstance(parent, dict):
            parent.setdefault(name, {} if known.is_section else known.example)
    return repaired


def _touches(key: str, faulty: str) -> bool:
    return key == faulty or key.startswith(f"{faulty}.")


def _show(value: Any) -> str:
    match value:
        case dict():
            return f"a section with {', '.join(value)}" if value else "an empty section"
        case tuple():
            return f"[{', '.join(map(_show, value))}]"
        case float():
            return f"{value:g}"
        case _:
            return json.dumps(value, ensure_ascii=False)
