"""From a file and overrides to a Recipe: read, extended, overridden, validated; all faults are reported together."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import RecipeError
from orchestrator.recipe.document import Fault, Node, Origin, override_node, read_yaml
from orchestrator.recipe.faults import list_faults
from orchestrator.recipe.library import find_recipe, shown_from_here
from orchestrator.recipe.schema import Recipe
from orchestrator.recipe.validate import validate

EXTENDS = "extends"
"""The one key of a file that isn't a recipe's: the file, or files, whose keys hold where this one has none.

Of several, later ones hold over earlier ones.
"""


def load_recipe(
    path_or_name: str | Path, overrides: Sequence[str] = (), *, environment: Mapping[str, str] = os.environ
) -> Recipe:
    """The recipe of a file, or of one that ships with dnctl, by its name.

    overrides: each 'dotted.key=value', the value in YAML; the later one wins.
    environment: what ${VAR} in paths is replaced from.
    Raises RecipeError that lists every fault with file, line, key, what was found and what is allowed.
    """
    path = find_recipe(str(path_or_name))
    tree, faults = _read_file(path, extended_by=())
    for override in overrides:
        over, override_faults = _read_override(override)
        tree = tree.merged_with(over) if over else tree
        faults += override_faults
    recipe, invalid = validate(tree, environment)
    known = {fault.key for fault in faults}
    faults += [fault for fault in invalid if fault.key not in known]
    if recipe is None or faults:
        raise _error(faults)
    return recipe if recipe.name is not None else recipe.model_copy(update={"name": path.stem})


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every key in it; loading it gives an equal recipe."""
    return "\n".join(_dump_section(recipe.model_dump(), indent="")) + "\n"


def _dump_section(section: Mapping[str, Any], *, indent: str) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _dump_section(value, indent=indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"  # JSON is YAML


def _read_file(path: Path, *, extended_by: tuple[Path, ...]) -> tuple[Node, list[Fault]]:
    """The tree of a file, with those that it extends merged in. Raises RecipeError if one can't be read at all."""
    source = str(shown_from_here(path))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{source} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{source} can't be read: byte {error.start} is not UTF-8") from None
    tree, faults = read_yaml(text, source)
    if tree is None:
        raise _error(faults)
    if not (isinstance(tree.value, Mapping) and EXTENDS in tree.value):
        return tree, faults
    extends, tree = tree.value[EXTENDS], tree.without(EXTENDS)
    bases = extends.value if isinstance(extends.value, tuple) else (extends,)
    below: Node | None = None
    for base in bases:
        base_tree, base_faults = _read_base(base, path, extended_by=(*extended_by, path))
        faults = base_faults + faults
        if base_tree is not None:
            below = base_tree if below is None else below.merged_with(base_tree)
    return (tree if below is None else below.merged_with(tree)), faults


def _read_base(extends: Node, path: Path, *, extended_by: tuple[Path, ...]) -> tuple[Node | None, list[Fault]]:
    """The tree of a file that `path` extends, None if there is no such file."""
    base = path.parent / extends.value if isinstance(extends.value, str) else None
    if base is None or not base.is_file():
        found = f"found {extends.plain()!r}; allowed: the path of a recipe file, seen from the folder of this one"
        return None, [Fault(extends.origin, EXTENDS, found)]
    if base.resolve() in {file.resolve() for file in extended_by}:
        return None, [Fault(extends.origin, EXTENDS, f"found {extends.value!r}, which extends this file")]
    return _read_file(base, extended_by=extended_by)


def _read_override(override: str) -> tuple[Node | None, list[Fault]]:
    key, equals, value = override.partition("=")
    source = f"--set {override}"
    key = key.strip()
    if not equals or not all(key.split(".")):
        return None, [Fault(Origin(source), "", "found no key and value; allowed: KEY=VALUE, such as train.epochs=30")]
    return override_node(source, key, value)


def _error(faults: Iterable[Fault]) -> RecipeError:
    return RecipeError(list_faults(faults, "recipe"))
