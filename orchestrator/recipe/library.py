"""Where recipes come from: the ones that ship with dnctl, by name, and files, by path."""

import difflib
import os
from pathlib import Path

from orchestrator.errors import RecipeError

_PACKAGE = Path(__file__).resolve().parents[1]


def recipes_dir() -> Path:
    """The folder of the recipes that ship with dnctl."""
    return shipped_dir("recipes")


def shipped_dir(name: str) -> Path:
    """A folder that ships with dnctl: of the checkout, or of the installed package."""
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name


def shipped_recipes() -> tuple[Path, ...]:
    """Their files, by name: those at the top, then those of the paper's Table 2; base/ holds what these extend."""
    return tuple(sorted(recipes_dir().glob("*.yaml"))) + tuple(sorted(recipes_dir().glob("table2/*.yaml")))


def find_recipe(path_or_name: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships with dnctl. Raises RecipeError if there is none."""
    path = Path(path_or_name)
    if os.path.isfile(path):  # noqa: PTH113 — unlike pathlib's, it says no to names that can't be, too
        return path
    shipped = {file.stem: file for file in shipped_recipes()}
    if path_or_name in shipped:
        return shown_from_here(shipped[path_or_name])
    if os.path.isdir(path):  # noqa: PTH112
        raise RecipeError(f"{path_or_name} is a folder: name a recipe file in it.")
    nearest = difflib.get_close_matches(path_or_name, shipped, n=3, cutoff=0.4) or list(shipped)[:5]
    raise RecipeError(
        f"There is no recipe {path_or_name}: no file of that name, "
        f"and none that ships with dnctl. Nearest: {', '.join(nearest)}; `dnctl recipe list` has them all."
    )


def shown_from_here(path: Path) -> Path:
    """The path relative to the working folder where it lies within, for messages."""
    absolute = Path(os.path.normpath(path.absolute()))
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
