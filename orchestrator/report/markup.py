"""HTML that is put together from elements. Text is escaped unless it is markup that was made here.

Names, reasons and messages come from run directories, which anybody may have written to.
"""

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(content: str) -> Markup:
    """Text as HTML shows it; markup stays as it is."""
    return content if isinstance(content, Markup) else Markup(escape(content, quote=True))


def element(name: str, *contents: str, **attributes: str | None) -> Markup:
    """An element; an attribute's trailing underscore goes, as in class_, and None leaves it out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{''.join(map(text, contents))}</{name}>")


def void_element(name: str, **attributes: str) -> Markup:
    """An element that has no contents and no end."""
    given = "".join(f' {key}="{escape(value, quote=True)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>")


def joined(*parts: str) -> Markup:
    """One after the other."""
    return Markup("".join(map(text, parts)))
