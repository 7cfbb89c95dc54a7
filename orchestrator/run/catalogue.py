"""Which runs there are: finding one by name, unique prefix or `last`, and naming new ones."""

import os
import re
from datetime import datetime
from pathlib import Path

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.run import files
from orchestrator.run.directory import RunDirectory

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def storage_root() -> Path:
    """Where runs live: DNCTL_STORAGE, or ./runs."""
    location = os.environ.get("DNCTL_STORAGE") or "runs"
    if "://" in location:
        raise UsageError(
            f"DNCTL_STORAGE={location}: runs live on a filesystem that is mounted here (local or NFS); give its path"
        )
    return Path(location).absolute()


def list_runs(root: Path) -> list[RunDirectory]:
    """All runs under a root, in the order in which they were last launched or resumed."""
    with files.translated("list the runs in", root):
        if not root.is_dir():
            return []
        entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
        runs = [RunDirectory(entry) for entry in entries if (entry / "state.json").is_file()]
        return sorted(runs, key=lambda run: (run.recipe.stat().st_mtime if run.recipe.exists() else 0.0, run.name))


def find_run(root: Path, name: str) -> RunDirectory:
    """The run of that name, of that unique prefix, or `last`, the one last launched or resumed.

    Raises NotFoundError or UsageError.
    """
    if not name:
        raise UsageError("an empty name is no run's; give a name, a unique prefix of one, or `last`")
    exact = RunDirectory(root / name)
    if _NAME.fullmatch(name) and exact.exists():
        return exact
    runs = list_runs(root)
    if not runs:
        raise NotFoundError(f"there are no runs in {root}; `dnctl launch RECIPE` starts one, DNCTL_STORAGE says where")
    if name == "last":
        return runs[-1]
    matching = [run for run in runs if run.name.startswith(name)]
    if len(matching) > 1:
        names = ", ".join(run.name for run in matching[:8])
        raise UsageError(f"{name!r} could be any of {len(matching)} runs: {names}; give more of the name")
    if not matching:
        raise NotFoundError(f"there is no run {name!r} in {root}; `dnctl list` shows the runs there are")
    return matching[0]


def find_runs(root: Path, name: str) -> list[RunDirectory]:
    """The run that `find_run` finds, or all members of the family of that name, which are called `<name>.…`.

    Raises NotFoundError or UsageError.
    """
    if name and not RunDirectory(root / name).exists():
        family = [run for run in list_runs(root) if run.name.startswith(f"{name}.")]
        if len(family) > 1:
            return sorted(family, key=lambda run: run.name)
    return [find_run(root, name)]


def new_run(root: Path, *, name: str | None, recipe_name: str, now: datetime) -> RunDirectory:
    """The directory for a run of that name, which may exist; without a name, a new one after recipe and time."""
    if name is None:
        stem = f"{recipe_name}-{now:%Y%m%d-%H%M%S}"
        name, count = stem, 1
        while RunDirectory(root / name).exists():
            count += 1
            name = f"{stem}-{count}"
    if not _NAME.fullmatch(name) or name == "last":
        raise UsageError(
            f"{name!r} can't name a run: take letters, digits, '.', '_' and '-', a letter or digit first, not 'last'"
        )
    return RunDirectory(root / name)
