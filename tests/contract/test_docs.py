"""What the documents say of files and commands is so."""

import re
from pathlib import Path

import pytest
import typer

from orchestrator.cli.app import app
from orchestrator.cli.reference import command_reference, contexts
from tests.multihost import record

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
COMMANDS = [context.command_path.split()[1:] for context in contexts(typer.main.get_command(app))]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{link} leads nowhere"
        assert file.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert not anchor or anchor in _anchors(file), f"{link}: no such heading"


def _code(page: Path) -> str:
    """A page's blocks and spans of code; a recipe's comments."""
    if page.suffix == ".yaml":
        return "\n".join(re.findall(r"^ *# *(.*)$", page.read_text(), re.MULTILINE))
    blocks = re.findall(r"^```.*?^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`[^`]+`", _prose(page))])


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=_name)
def test_commands_that_are_named_exist(page: Path):
    """`dnctl X` and `dnctl X Y`, where a line or a span of code begins with it."""
    for name, rest in re.findall(r"(?:^|[`$/]) *dnctl ([a-z][a-z-]*)((?: [a-z][a-z-]*)?)", _code(page), re.MULTILINE):
        assert [name] in COMMANDS, f"`dnctl {name}` is no command"
        subcommands = [command[1] for command in COMMANDS if command[0:1] == [name] and len(command) > 1]
        assert not subcommands or not rest or rest.strip() in subcommands, f"`dnctl {name}{rest}` is no command"


def test_the_reference_of_commands_is_their_help():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert page == command_reference(), "docs/cli.md is out of date: run `make docs`"


def test_what_came_of_faults_is_what_was_recorded():
    _, _, rest = record.DOCUMENT.read_text().partition(record.BEGIN)
    assert rest.partition(record.END)[0].strip() == record.whole_table(), "run `python -m tests.multihost.record`"
