"""From a tree of values to a Recipe, or to everything that is wrong with it."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.recipe.checks import contradictions
from orchestrator.recipe.document import Fault, Node
from orchestrator.recipe.faults import explain_all, lookup, show
from orchestrator.recipe.reference import recipe_keys
from orchestrator.recipe.schema import Recipe


def validate(tree: Node, environment: Mapping[str, str]) -> tuple[Recipe | None, list[Fault]]:
    """The recipe that the tree describes, None if it has faults, and all its faults.

    environment: what ${VAR} in paths is replaced from.
    """
    values = tree.plain()
    if not isinstance(values, dict):
        found = "found nothing" if values is None else f"found {show(values)}"
        return None, [Fault(tree.origin, "", f"{found}; allowed: keys and values, such as `seed: 0`")]
    origins = dict(tree.origins())
    recipe, errors = _build(values, environment)
    faults = {fault.key: fault for fault in explain_all(errors, values, recipe_keys(), origins, tree.origin)}
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


def _repaired(values: dict[str, Any], faulty: set[str]) -> dict[str, Any]:
    """The values without the faulty ones, and with examples of what is then missing."""
    repaired = copy.deepcopy(values)
    for key in faulty:
        section, _, name = key.rpartition(".")
        lookup(repaired, section).pop(name, None)
    for known in recipe_keys().values():
        section, _, name = known.key.rpartition(".")
        parent = lookup(repaired, section)
        if known.is_required and isinstance(parent, dict):
            parent.setdefault(name, {} if known.is_section else known.example)
    return repaired


def _touches(key: str, faulty: str) -> bool:
    return key == faulty or key.startswith(f"{faulty}.")
