"""Field types of the schema that YAML has no notation for: paths with ${VAR}, and quotients such as 1/3."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from orchestrator.redaction import has_password

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def _expand_variables(text: str, info: ValidationInfo) -> str:
    """`text` with each ${VAR} replaced from the validation context, a mapping of environment variables."""
    environment: Mapping[str, str] = info.context or {}
    unset = sorted({name for name in _VARIABLE.findall(text) if name not in environment})
    if unset:
        raise ValueError(
            f"found {text!r}, but {' and '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set in the environment"
        )
    expanded = _VARIABLE.sub(lambda match: environment[match.group(1)], text)
    if has_password(expanded):
        raise ValueError("found a URL with a password; allowed: the URL alone, and the password in the environment")
    if not expanded.strip():
        raise ValueError(f"found {text!r}, which is empty; allowed: a path, in which ${{VAR}} is replaced")
    if expanded.partition("/")[0] == "~" and "HOME" in environment:
        return str(PurePath(environment["HOME"], expanded[2:]))
    return expanded


def _refuse_variables(text: str) -> str:
    if _VARIABLE.search(text):
        raise ValueError(f"found {text!r}, but ${{VAR}} is replaced in paths alone")
    if not text.strip():
        raise ValueError("found empty text; allowed: text that says something")
    return text


def _read_quotient(value: Any) -> Any:
    """'1/3' as a number; anything else unchanged."""
    match = re.fullmatch(r"(\d+)/(\d+)", value) if isinstance(value, str) else None
    return int(match[1]) / int(match[2]) if match and int(match[2]) else value


PathText = Annotated[str, AfterValidator(_expand_variables), Field(json_schema_extra={"format": "path"})]
"""A path; ${VAR} is replaced from the environment and a leading ~ is the home folder."""

Text = Annotated[str, AfterValidator(_refuse_variables)]
"""Text that is no path."""


def _with_quotients(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": "number", **schema}, {"type": "string", "pattern": "^[0-9]+/[0-9]+$"}]})


Ratio = Annotated[float, BeforeValidator(_read_quotient), Field(gt=0), _with_quotients({"exclusiveMinimum": 0})]
"""A number above 0, as 0.75 or 3/4."""

Fraction = Annotated[
    float, BeforeValidator(_read_quotient), Field(gt=0, le=1), _with_quotients({"exclusiveMinimum": 0, "maximum": 1})
]
"""A part of a whole, as 0.25 or 1/4."""
