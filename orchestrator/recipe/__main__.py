"""`python -m orchestrator.recipe`, in a checkout: writes what is made from the schema, recipes/schema.json and docs."""

import json
from pathlib import Path

from orchestrator.recipe.library import recipes_dir
from orchestrator.recipe.reference import editor_schema, reference_table

START, END = "<!-- keys: made by python -m orchestrator.recipe -->\n", "<!-- end of keys -->\n"


def documented(page: str) -> str:
    """docs/recipes.md with the table of keys made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{reference_table()}{END}{after}"


def schema_text() -> str:
    """recipes/schema.json."""
    return json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    page = recipes_dir().parent / "docs" / "recipes.md"
    _write(recipes_dir() / "schema.json", schema_text())
    _write(page, documented(page.read_text(encoding="utf-8")))
