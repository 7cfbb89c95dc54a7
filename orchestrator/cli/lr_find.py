"""`dnctl lr-find`: which learning rates a recipe bears, found on its own images in some minutes."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json, stderr
from orchestrator.cli.progress import progress_bar
from orchestrator.cli.recipe import RecipeArgument, SetOption
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.train.range_test import RangeTest

_BAR_WIDTH = 30
_MOST_ROWS = 16


def lr_find(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    lowest: Annotated[float, typer.Option("--from", min=1e-12, help="The first, lowest rate.")] = 1e-4,
    highest: Annotated[float, typer.Option("--to", min=1e-12, help="The last, highest rate.")] = 10.0,
    steps: Annotated[int, typer.Option("--steps", min=10, help="Steps, each at a higher rate.")] = 100,
    json_output: JsonOption = False,
) -> None:
    """Train a recipe for some steps at a rate that grows until the loss does. On this machine, keeping nothing."""
    from orchestrator.data.index import index_dataset
    from orchestrator.engine.planning import make_plan
    from orchestrator.plan.cluster import local_shape
    from orchestrator.recipe.load import load_recipe
    from orchestrator.train.range_test import range_test

    if lowest >= highest:
        raise UsageError(f"--from {lowest:g} must be below --to {highest:g}")
    loaded = load_recipe(recipe, [*(overrides or []), "cluster.workers=1"])
    with progress_bar("indexing images") as progress:
        plan = make_plan(loaded, local_shape(), progress=progress)
    assert loaded.data.root is not None
    dataset = index_dataset(loaded.data.root, damaged=loaded.data.damaged)
    with progress_bar("training") as progress:
        found = range_test(
            plan, dataset, lowest=lowest, highest=highest, num_steps=steps, on_step=lambda done: progress(done, steps)
        )
    if not found.points:
        raise UsageError(f"the very first step, at {lowest:g}, has a loss that isn't finite; take a lower --from")
    if json_output:
        print_json(
            {
                "suggested": found.suggested,
                "lowest_loss_at": found.lowest.learning_rate,
                "diverged_at": found.diverged_at,
                "points": [asdict(point) for point in found.points],
            }
        )
        return
    _show(found, asked_for=plan.numerics.optimizer.lr)


def _show(found: "RangeTest", *, asked_for: float) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("rate", "loss", "smoothed", "gradient norm"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    every = max(1, -(-len(found.points) // _MOST_ROWS))
    highest = max(point.smoothed_loss for point in found.points)
    for point in found.points[::every]:
        bar = "█" * max(1, round(point.smoothed_loss / highest * _BAR_WIDTH))
        numbers = (f"{point.learning_rate:.3g}", f"{point.loss:.4f}", f"{point.smoothed_loss:.4f}")
        table.add_row(*numbers, f"{point.grad_norm:.3g}", bar)
    console().print(table)
    end = "never exploded" if found.diverged_at is None else f"exploded at {found.diverged_at:.3g}"
    console().print(f"The smoothed loss was lowest at {found.lowest.learning_rate:.3g} and {end}.")
    console().print(f"[bold]A tenth of the former is a rate to begin with: {found.suggested:.2g}[/bold]")
    if found.diverged_at is not None and asked_for >= found.diverged_at:
        stderr().print(
            f"the recipe's rate, {asked_for:g}, is not below that: lower train.optimizer.lr or set "
            "train.schedule.warmup_epochs"
        )
