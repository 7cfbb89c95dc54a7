"""`dnctl recipe`: what recipes there are, what one says in full, whether it is valid, and what each key means."""

from typing import Annotated

import typer

from orchestrator.cli.output import JsonOption, console, print_json

app = typer.Typer(help="See and check recipes.", no_args_is_help=True)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of one that ships with dnctl.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.")
]


@app.command("list")
def list_recipes(json_output: JsonOption = False) -> None:
    """The recipes that ship with dnctl."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from orchestrator.recipe.library import recipes_dir, shipped_recipes, shown_from_here
    from orchestrator.recipe.load import load_recipe

    recipes = [(file, load_recipe(file)) for file in shipped_recipes()]
    if json_output:
        print_json([{"name": file.stem, "path": str(file), "model": recipe.model.name} for file, recipe in recipes])
        return
    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("name", "network"):
        table.add_column(heading, no_wrap=True)
    for heading in ("epochs", "batch", "learning rate"):
        table.add_column(heading, justify="right")
    for file, recipe in recipes:
        train = recipe.train
        numbers = (str(train.epochs), str(train.global_batch_size), f"{train.optimizer.lr:g}")
        table.add_row(file.stem, recipe.model.name, *numbers)
    console().print(table)
    console().print(Text(f"Their files are in {shown_from_here(recipes_dir())}; the head of each says what to expect."))


@app.command()
def show(recipe: RecipeArgument, overrides: SetOption = None, json_output: JsonOption = False) -> None:
    """A recipe in full. What it extends, overrides and defaults are resolved into one plain recipe."""
    from orchestrator.recipe.load import dump_recipe, load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if json_output:
        print_json(loaded.model_dump(mode="json"))
    else:
        typer.echo(dump_recipe(loaded), nl=False)


@app.command()
def validate(recipe: RecipeArgument, overrides: SetOption = None, json_output: JsonOption = False) -> None:
    """Check a recipe. All faults come at once, each with its line, what was found and what is allowed."""
    from orchestrator.plan.resolve import check_recipe
    from orchestrator.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_recipe(loaded)
    if json_output:
        print_json({"recipe": recipe, "name": loaded.name, "valid": True})
    else:
        console().print(f"{recipe} is a valid recipe.", markup=False)


@app.command()
def schema(json_output: JsonOption = False) -> None:
    """Every key of a recipe. What it does, what is allowed, and its default; as JSON, the schema for editors."""
    from rich.text import Text

    from orchestrator.recipe.reference import editor_schema, recipe_keys

    if json_output:
        print_json(editor_schema())
        return
    for key in recipe_keys().values():
        text = Text(key.key, style="bold")
        if not key.is_section:
            text.append(f"  {key.allowed}; {'required' if key.is_required else f'default {key.default}'}", style="dim")
        console().print(text)
        console().print(Text(f"    {key.description}"))
