"""What a schema says about each key, in words: for error messages, `dnctl recipe schema` and docs/recipes.md."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from orchestrator.recipe.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a recipe, or of another YAML file."""

    key: str
    """Dotted."""
    allowed: str
    is_required: bool
    default: str
    """As YAML; empty for a section and for what is required."""
    each_allowed: str
    """What its own keys may hold where they have any name; otherwise empty."""
    description: str
    is_section: bool
    """Whether it holds keys and nothing else can stand in their place."""
    example: Any
    """A valid value where the key is required, otherwise None."""


@cache
def recipe_keys() -> Mapping[str, Key]:
    """Every key of a recipe by its dotted name, in the order of the schema; sections come before what they hold."""
    return keys_of(Recipe)


def keys_of(model: type[BaseModel]) -> Mapping[str, Key]:
    """Every key of a file with that schema, by its dotted name."""
    schema = model.model_json_schema()
    return {key.key: key for key in _walk(schema, schema.get("$defs", {}), prefix="")}


def editor_schema() -> dict[str, Any]:
    """The JSON schema of a recipe file, as in recipes/schema.json.

    It allows `extends`, which the loader resolves, and requires nothing, since a file that extends another may leave
    out anything; `dnctl recipe validate` checks what the two say together.
    """
    schema = Recipe.model_json_schema()
    file = {"type": "string", "format": "path"}
    extends = {
        "anyOf": [file, {"type": "array", "items": file}],
        "description": "A recipe file, seen from this one's folder, whose keys hold where this has none; of several, "
        "later ones hold over earlier ones.",
    }
    properties = {"extends": extends, **schema.pop("properties")}
    definitions = {name: _without(definition, "required") for name, definition in schema.pop("$defs").items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without(schema, "required"),
        "properties": properties,
        "$defs": definitions,
    }


def allowed_values(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words: 'a whole number at least 1, or null'."""
    if "anyOf" in schema:
        return ", or ".join(allowed_values(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        *others, last = [json.dumps(value) for value in schema.get("enum", [schema.get("const")])]
        return f"{', '.join(others)} or {last}" if others else last
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])}, each {allowed_values(schema['prefixItems'][0])}"
    if "additionalProperties" in schema and "type" in schema:
        return f"keys and values, each {allowed_values(schema['additionalProperties'])}"
    if "items" in schema:
        return f"a list, each {allowed_values(schema['items'])}"
    if "pattern" in schema:
        return "a quotient such as 1/3"
    kind = "path" if schema.get("format") == "path" else schema.get("type", "object")
    bounds = " and ".join(f"{words} {schema[bound]}" for bound, words in _BOUNDS.items() if bound in schema)
    return f"{_KINDS[kind]} {bounds}".rstrip()


def reference_table() -> str:
    """Every key as a table in Markdown, for docs/recipes.md."""
    lines = ["| key | allowed | default | |", "|---|---|---|---|"]
    for key in recipe_keys().values():
        allowed = "" if key.is_section else key.allowed
        default = "required" if key.is_required and not key.is_section else f"`{key.default}`" if key.default else ""
        name = f"**{key.key}**" if key.is_section else f"`{key.key}`"
        lines.append(f"| {name} | {allowed} | {default} | {key.description} |")
    return "\n".join(lines) + "\n"


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "path": "a path, in which ${VAR} is replaced",
    "null": "null",
    "object": "a section of keys",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def _walk(section: Mapping[str, Any], definitions: Mapping[str, Any], *, prefix: str) -> Iterator[Key]:
    for name, field in section["properties"].items():  # pydantic leaves out a text that is the section's own
        target = _section_of(field, definitions)
        is_section = target is not None and not _may_be_a_value(field)
        is_required = name in section.get("required", ())
        is_optional_section = is_section and not is_required and field["default"] is None
        yield Key(
            key=prefix + name,
            allowed=allowed_values(field),
            is_required=is_required,
            default=json.dumps(field["default"]) if is_optional_section or not (is_required or is_section) else "",
            each_allowed=allowed_values(field["additionalProperties"]) if "additionalProperties" in field else "",
            description=" ".join((field if "description" in field else target or {})["description"].split()),
            is_section=is_section,
            example=field.get("examples", [None])[0],
        )
        if target is not None:
            yield from _walk(target, definitions, prefix=f"{prefix}{name}.")


def _section_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for option in (field, *field.get("anyOf", ())):
        if "$ref" in option:
            section: Mapping[str, Any] = definitions[option["$ref"].rpartition("/")[2]]
            return section
    return None


def _may_be_a_value(field: Mapping[str, Any]) -> bool:
    return any("$ref" not in option and option.get("type") != "null" for option in field.get("anyOf", ()))


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
