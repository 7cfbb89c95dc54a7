"""`dnctl sweep`: a family of runs under one name, submitted and shown together; finished ones aren't run again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.launch import ClusterOption, SetOption, submit_member
from orchestrator.cli.output import JsonOption, console, print_json, stderr
from orchestrator.cli.recipe import RecipeArgument
from orchestrator.errors import UsageError
from orchestrator.run.catalogue import new_run, storage_root
from orchestrator.run.directory import RunDirectory
from orchestrator.run.family import Member, members, parse_axis, spread
from orchestrator.run.status import RunStatus, read_status

if TYPE_CHECKING:
    from orchestrator.recipe.schema import Recipe

_NOT_LAUNCHED = "not launched"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """A member and what is known of its run."""

    member: Member
    recipe: "Recipe"
    run: RunDirectory

    def status(self) -> RunStatus | None:
        return read_status(self.run, now=time()) if self.run.exists() else None


def sweep(
    recipe: RecipeArgument,
    over: Annotated[
        list[str], typer.Option("--over", metavar="KEY=VALUE,…", help="A key and the values it takes; repeatable.")
    ],
    overrides: SetOption = None,
    cluster: ClusterOption = None,
    name: Annotated[str | None, typer.Option("--name", help="The family's name; the recipe's if left out.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Show the family as it stands; submit nothing.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Run every combination of values. The same command again shows where they are and submits what is missing.

    Runs that finished or are under way are left alone; those that stopped, failed or were lost go on. Figures of runs
    that differ in their seed alone are shown with mean and spread.
    """
    from orchestrator.plan.resolve import check_recipe
    from orchestrator.recipe.load import load_recipe

    base = load_recipe(recipe, overrides or [])
    family = name or base.name or "sweep"
    planned = []
    for member in members(family, [parse_axis(text) for text in over]):
        loaded = load_recipe(recipe, [*(overrides or []), *member.overrides])
        check_recipe(loaded)
        run = new_run(storage_root(), name=member.name, recipe_name=family, now=datetime.now(UTC))
        planned.append(_Planned(member=member, recipe=loaded, run=run))
    if not status:
        for each in planned:
            _submit(each, cluster)
    document = _document(family, planned)
    if json_output:
        print_json(document)
    else:
        _show(document)


def _submit(planned: _Planned, cluster: str | None) -> None:
    """Submit a run that isn't there yet, or resume one that neither runs nor finished."""
    try:
        if submit_member(planned.run, planned.recipe, cluster):
            stderr().print(f"submitted {planned.run.name}", markup=False)
    except UsageError as error:
        raise UsageError(f"{planned.run.name}: {error}") from error


def _document(family: str, planned: Sequence[_Planned]) -> dict[str, Any]:
    runs: list[dict[str, Any]] = []
    groups: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for each in planned:
        status = each.status()
        progress = status.progress if status else None
        final = None if progress is None else (progress.top1 if progress.test_top1 is None else progress.test_top1)
        is_over = status is not None and str(status.state) == "SUCCEEDED"
        runs.append(
            {
                "run": each.run.name,
                "settings": dict(each.member.settings),
                "state": str(status.state) if status else _NOT_LAUNCHED,
                "epoch": progress.epoch if progress else None,
                "num_epochs": progress.num_epochs if progress else each.recipe.train.epochs,
                "loss": progress.loss if progress else None,
                "top1": final,
            }
        )
        figures = groups.setdefault(each.member.group, [])
        if is_over and final is not None:
            figures.append(100 - final)
    return {
        "family": family,
        "runs": runs,
        "groups": [_group(dict(group), figures) for group, figures in groups.items()],
    }


def _group(settings: dict[str, str], errors: Sequence[float]) -> dict[str, Any]:
    found = spread(errors)
    return {
        "settings": settings,
        "finished": len(errors),
        "mean_error": found.mean if found else None,
        "deviation": found.deviation if found else None,
    }


def _show(document: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("run", no_wrap=True, overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("epoch", "loss", "error %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in document["runs"]:
        epoch = "–" if run["epoch"] is None else f"{run['epoch']}/{run['num_epochs']}"
        loss = "–" if run["loss"] is None else f"{run['loss']:.4f}"
        error = "–" if run["top1"] is None else f"{100 - run['top1']:.2f}"
        table.add_row(run["run"], run["state"], epoch, loss, error)
    console().print(table)
    for group in document["groups"]:
        said = ", ".join(f"{key}={value}" for key, value in group["settings"].items()) or document["family"]
        if group["mean_error"] is None:
            console().print(f"{said}: none has finished", markup=False)
            continue
        deviation = "" if group["deviation"] is None else f" ± {group['deviation']:.2f}"
        runs = f"{group['finished']} finished run{'' if group['finished'] == 1 else 's'}"
        console().print(f"{said}: error {group['mean_error']:.2f}{deviation} % over {runs}", markup=False)
