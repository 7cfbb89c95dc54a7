"""`dnctl model`: what networks there are, and what each costs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import JsonOption, console, human_bytes, print_json
from orchestrator.plan.architecture import DenseNetArchitecture
from orchestrator.plan.footprint import footprint
from orchestrator.plan.networks import DEFAULT_TASKS, FAMILIES, NETWORKS, TIMM_PREFIX, Architecture, find_architecture
from orchestrator.plan.stage_costs import BYTES_PER_VALUE, Footprint

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="What networks there are, and what each costs.", no_args_is_help=True)

_IN_CHANS = 3


@app.command("list")
def list_models(json_output: JsonOption = False) -> None:
    """The networks of the paper's tables, and those it compares with. With their exact parameter counts."""
    models = [_summary(name) for name in NETWORKS]
    if json_output:
        print_json(models)
        return
    table = _table(texts=("name", "k", "blocks"), numbers=("classes", "image", "parameters", "mult-adds"))
    for model in models:
        table.add_row(
            model["name"],
            *_shape(NETWORKS[model["name"]]),
            str(model["num_classes"]),
            f"{model['image_size']} px",
            f"{model['num_parameters']:,}",
            _millions(model["num_multiply_adds"]),
        )
    console().print(table)
    console().print(
        "k: growth rate. Networks of a family may have any depth that fits it and any k, such as densenetbc40_24: "
        f"{', '.join(FAMILIES)}. A recipe can also name any of timm's models, as {TIMM_PREFIX}NAME."
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name from `dnctl model list`, or timm:NAME.")],
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes; otherwise those of the data that the network was made for.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side; otherwise those that the network was made for.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """One network, stage by stage. Outputs, parameters, multiply-adds and activation memory, for one image."""
    measure = _measured if name.startswith(TIMM_PREFIX) else _counted
    summary, cost = measure(name, num_classes, image_size)
    if json_output:
        print_json({**summary, "activation_bytes_per_image": _activation_bytes(cost), "rows": _json_rows(cost)})
        return
    _print_footprint(summary, cost)


def _counted(name: str, num_classes: int | None, image_size: int | None) -> tuple[dict[str, Any], Footprint]:
    """Summary and footprint of one of our networks, from its architecture."""
    architecture = find_architecture(name)
    task = DEFAULT_TASKS[architecture.stem]
    num_classes, image_size = num_classes or task.num_classes, image_size or task.image_size
    cost = footprint(architecture, num_classes=num_classes, in_chans=_IN_CHANS, image_size=image_size)
    summary = {
        "name": name,
        "kind": "DenseNet" if isinstance(architecture, DenseNetArchitecture) else "ResNet",
        **asdict(architecture),
        "num_classes": num_classes,
        "image_size": image_size,
        "num_parameters": cost.num_parameters,
        "num_multiply_adds": cost.num_multiply_adds,
    }
    return summary, cost


def _measured(name: str, num_classes: int | None, image_size: int | None) -> tuple[dict[str, Any], Footprint]:
    """Summary and footprint of one of timm's networks, from running it without values. Imports torch."""
    import torch

    from orchestrator.models import create_model
    from orchestrator.models.measure import measure_footprint

    task = DEFAULT_TASKS["imagenet"]
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes or task.num_classes, in_chans=_IN_CHANS)
    timm_config: Any = model.pretrained_cfg
    usual_size = timm_config["input_size"][-1]
    cost = measure_footprint(model, in_chans=_IN_CHANS, image_size=image_size or usual_size)
    summary = {
        "name": name,
        "num_classes": num_classes or task.num_classes,
        "image_size": image_size or usual_size,
        "num_parameters": cost.num_parameters,
        "num_multiply_adds": cost.num_multiply_adds,
    }
    return summary, cost


def _shape(architecture: Architecture) -> tuple[str, str]:
    """Growth rate, where there is one, and blocks."""
    if isinstance(architecture, DenseNetArchitecture):
        return str(architecture.growth_rate), ", ".join(map(str, architecture.block_config))
    return "", f"{len(architecture.widths)} x {architecture.units_per_stage} units"


def _summary(name: str) -> dict[str, Any]:
    summary, _ = _counted(name, None, None)
    return summary


def _activation_bytes(cost: Footprint) -> dict[str, dict[str, int]]:
    return {
        precision: {
            "kept": cost.activation_bytes_per_image(precision),
            "memory_efficient": cost.activation_bytes_per_image(precision, memory_efficient=True),
        }
        for precision in BYTES_PER_VALUE
    }


def _json_rows(cost: Footprint) -> list[dict[str, Any]]:
    return [asdict(row) for row in cost.rows]


def _print_footprint(summary: dict[str, Any], cost: Footprint) -> None:
    from rich.markup import escape

    heading = f"{summary['name']}, one image of {summary['image_size']} px, {summary['num_classes']} classes"
    console().print(escape(heading), style="bold")
    table = _table(texts=("stage", "output", "layers"), numbers=("parameters", "mult-adds", "kept"))
    for row in cost.rows:
        table.add_row(
            row.stage,
            row.output,
            escape(row.layers),
            f"{row.num_parameters:,}",
            _millions(row.num_multiply_adds),
            human_bytes(row.activation_bytes("fp32", memory_efficient=False)),
        )
    table.add_section()
    kept = human_bytes(cost.activation_bytes_per_image("fp32"))
    table.add_row("all", "", "", f"{cost.num_parameters:,}", _millions(cost.num_multiply_adds), kept)
    console().print(table)
    console().print("Outputs are channels x height x width. Kept are activations, in fp32, for the backward pass.")
    for precision, kept_bytes in _activation_bytes(cost).items():
        plain, recomputed = human_bytes(kept_bytes["kept"]), human_bytes(kept_bytes["memory_efficient"])
        saving = f", {recomputed} with model.memory_efficient" if recomputed != plain else ""
        console().print(f"{precision}: {plain} an image{saving}")


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _table(*, texts: tuple[str, ...], numbers: tuple[str, ...]) -> "Table":
    """A table in which texts wrap where the terminal is narrow; names, in the first column, and numbers never do."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for heading in texts:
        table.add_column(heading, overflow="fold", no_wrap=heading == texts[0])
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
