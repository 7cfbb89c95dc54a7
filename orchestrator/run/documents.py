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
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache, partial
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

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


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer, parse_constant=_finite)


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
    checks, required = _field_checks(fields_of)
    missing = required - document.keys()
    if missing:
        raise ValueError(f"{min(missing)} is missing")
    return kind(**{name: check(name, document[name]) for name, check in checks.items() if name in document})


_Check: TypeAlias = Callable[[str, Any], Any]
"""Takes a field's name and its value; returns that as the type that it should have. Raises ValueError."""


@cache
def _field_checks(kind: Any) -> tuple[dict[str, _Check], frozenset[str]]:
    """The check of each field of a dataclass, and which fields must be there."""
    hints = get_type_hints(kind)
    required = (field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING)
    return {field.name: _check_of(hints[field.name]) for field in fields(kind)}, frozenset(required)


def _check_of(kind: Any) -> _Check:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda _, value: value
    if origin in (types.UnionType, Union):
        (inner,) = (_check_of(argument) for argument in arguments if argument is not types.NoneType)
        return lambda name, value: None if value is None else inner(name, value)
    if origin is tuple:
        inner = _check_of(arguments[0])
        return lambda name, value: tuple([inner(name, item) for item in _of(list, name, value)])
    if origin is Literal or (isinstance(kind, type) and issubclass(kind, StrEnum)):
        choices = {str(choice): choice for choice in (arguments or kind)}
        return lambda name, value: choices[value] if _of(str, name, value) in choices else _refuse(name, value)
    if origin is not None and issubclass(origin, Mapping):
        inner = _check_of(arguments[1])
        return lambda name, value: {key: inner(f"{name}.{key}", item) for key, item in _of(dict, name, value).items()}
    if kind is int or kind is float:
        return partial(_number, (int,) if kind is int else (int, float))
    if isinstance(kind, type) and is_dataclass(kind):
        return lambda name, value: record(kind, _of(dict, name, value))
    return partial(_of, kind)


def _of(kind: type[T], name: str, value: Any) -> T:
    return value if type(value) is kind else _refuse(name, value)


def _number(kinds: tuple[type, ...], name: str, value: Any) -> Any:
    return value if type(value) in kinds and 0 <= value < 2**64 else _refuse(name, value)


def _refuse(name: str, value: Any) -> NoReturn:
    raise ValueError(f"{name} is {_shown(value)}")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "…"
