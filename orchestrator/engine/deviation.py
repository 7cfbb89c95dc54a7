"""A run that goes on with another schedule: allowed when it is asked for, recorded in the plan, the old plan kept.

What else its weights depend on can't change: that would be another run.
"""

from dataclasses import replace
from typing import Final

from orchestrator.engine.planning import load_plan, write_plan, write_recipe
from orchestrator.errors import UsageError
from orchestrator.plan.plan import Deviation, Plan
from orchestrator.plan.resolve import resolve_again
from orchestrator.recipe.schema import Recipe
from orchestrator.run import files
from orchestrator.run.checkpoints import list_checkpoints
from orchestrator.run.directory import RunDirectory

MAY_CHANGE: Final = ("epochs", "num_steps", "milestones_steps", "gamma", "warmup_steps", "optimizer.lr")
"""Fields of the numerics that decide about steps to come alone."""


def deviate(run: RunDirectory, recipe: Recipe) -> Plan | None:
    """Fix a new plan for a run whose recipe asks for another schedule; None if it asks for nothing new.

    Raises PlanError for what can't work, and UsageError for what can't change or comes too late.
    """
    before = load_plan(run)
    if before is None:
        return None
    now = resolve_again(before, recipe)
    differences = now.numerics.differences(before.numerics)
    if not differences:
        return None
    refused = [
        f"  {key}: now {ours!r}, the run began with {theirs!r}"
        for key, ours, theirs in differences
        if key not in MAY_CHANGE
    ]
    if refused:
        raise UsageError(
            f"run {run.name} can't go on with other numerics:\n" + "\n".join(refused) + "\n"
            "put them back, or launch a new run under another name; the schedule, the learning rate and the number of "
            "epochs may change"
        )
    checkpoints = list_checkpoints(run.checkpoints)
    step = checkpoints[-1].step if checkpoints else 0
    if now.numerics.num_steps <= step:
        raise UsageError(
            f"run {run.name} has done {step} steps, {step / now.numerics.steps_per_epoch:g} epochs: train.epochs must "
            f"be above that, found {now.numerics.epochs}"
        )
    if before.numerics.num_test_images and step >= before.numerics.num_steps:
        raise UsageError(
            f"run {run.name} is over and its test set has been touched; launch a new run with more epochs instead"
        )
    deviation = Deviation(
        step=step,
        changes=tuple((key, str(theirs), str(ours)) for key, ours, theirs in differences),
        numerics_before=before.fingerprints["numerics"],
        plan_before=f"plan-{len(before.deviations)}.json",
    )
    files.write_atomically(run.path / deviation.plan_before, before.to_json().encode())
    plan = replace(now, deviations=(*before.deviations, deviation))
    write_recipe(run, recipe)
    write_plan(run, plan)
    return plan
