"""JSON of a run directory: strict when it is read, sealed against flipped bytes, and turned into checked dataclasses.

A run directory lies on storage that flips bytes, and somebody else may have written it. So nothing of it is believed:
numbers are finite and fit into 64 bits, no name comes twice, no nesting exhausts the stack, and every field of a record
has the type that its dataclass says.
"""

import json
import math
import re
import types
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_SEAL_KEY, _SEAL_VALUE = "checksum", "crc32:"
_SEAL = re.compile(rb',?\s*"checksum": "crc32:([0-9a-f]{8})"\s*\}\s*\Z')
_SEAL_BYTES = 48
"""What a seal takes at the end of a text, at most."""


def parse(content: bytes) -> Any:
    """The value of a JSON text. Raises ValueError for what isn't one, or isn't one that dnctl writes."""
    try:
        return _DECODER.decode(content.decode())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON ({error})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer, parse_constant=lambda text: _finite(text)
)


def seal(text: bytes) -> bytes:
    """The text of a JSON object with a checksum of all before it as its last entry."""
    body = text[: text.rindex(b"}")].rstrip()
    before, end = (b",\n  ", b"\n}\n") if b"\n" in body else (b", ", b"}")
    if body.endswith(b"{"):
        before = before.lstrip(b",")
    return body + before + b'"checksum": "crc32:' + _checksum(body) + b'"' + end


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def parse_sealed(content: bytes) -> dict[str, Any]:
    """The object of a JSON text without its checksum, which must fit; a text that has none is believed.

    Raises ValueError.
    """
    document = parse(content)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    seal = _SEAL.search(content, max(len(content) - _SEAL_BYTES, 0))
    if seal is not None and seal[1] == _checksum(content[: seal.start()]):
        del document[_SEAL_KEY]
    elif _SEAL_KEY in document or str(next(reversed(document.values()), "")).startswith(_SEAL_VALUE):
        raise ValueError("it was changed after it was written: its checksum doesn't fit")
    return document


def record(kind: type[T], document: Mapping[str, Any]) -> T:
    """A dataclass from a JSON object, every field checked and no number negative; other entries are left out.

    Raises ValueError that names the field.
    """
    fields_of: Any = kind
    types_of, required = _field_types(fields_of), _required(fields_of)
    missing = required - document.keys()
    if missing:
        raise ValueError(f"{min(missing)} is missing")
    return kind(**{name: _checked(name, document[name], types_of[name]) for name in types_of if name in document})


@cache
def _field_types(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


@cache
def _required(kind: Any) -> frozenset[str]:
    return frozenset(
        field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING
    )


def _checked(name: str, value: Any, kind: Any) -> Any:
    """A value as the type that it should have."""
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        if value is None:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _checked(name, value, kind)
    if origin is Literal and value in arguments and isinstance(value, str):
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(name, item, arguments[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _checked(f"{name}.{key}", item, arguments[1]) for key, item in value.items()}
    if isinstance(kind, type) and _is_plain(value, kind):
        return value
    if isinstance(kind, type) and issubclass(kind, StrEnum) and value in list(kind):
        return kind(value)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        return record(kind, value)
    raise ValueError(f"{name} is {_shown(value)}")


def _is_plain(value: Any, kind: type) -> bool:
    if kind is float or kind is int:
        is_number = type(value) is int or (kind is float and type(value) is float)
        return is_number and 0 <= value < 2**64
    return kind in (str, bool) and type(value) is kind


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "…"
