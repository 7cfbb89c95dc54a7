"""What is in a checkpoint: the names of its files, and whether each is what it is called, found out without torch.

Hashes say that the bytes are those that were committed; this says that whoever committed them is one of us. A file of
tensors is an 8-byte length, a JSON header and the tensors' bytes; the header must account for every byte, once.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from orchestrator.errors import CheckpointError
from orchestrator.run import documents

MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
STATE: Final = "state.json"
FILES: Final = (MODEL, OPTIMIZER, STATE)

_LENGTH_BYTES = 8
_BITS_OF_TYPE = {"BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32}
_BITS_OF_TYPE |= {"F32": 32, "F64": 64, "I64": 64, "U64": 64}
_METADATA = "__metadata__"


def check_contents(contents: Mapping[str, bytes], *, step: int, source: str) -> None:
    """Raise CheckpointError unless all files of a checkpoint are there, are what they are called, and are of that step.

    source: what to call the checkpoint in a message.
    """
    for name in FILES:
        if name not in contents:
            raise CheckpointError(f"checkpoint {source} has no {name}; take another one")
        try:
            if name == STATE:
                _check_state(contents[name], step)
            else:
                _check_tensors(contents[name])
        except ValueError as error:
            raise CheckpointError(
                f"checkpoint {source} is not one that dnctl wrote: {name}: {error}; take another one"
            ) from error


def _check_state(content: bytes, step: int) -> None:
    document = documents.parse(content)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if document.get("step") != step:
        raise ValueError(f"it is of step {document.get('step')!r:.40}, the checkpoint's name says {step}")


def _check_tensors(content: bytes) -> None:
    """Raise ValueError unless a file of tensors is whole and its header tells the truth."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if len(content) < _LENGTH_BYTES or begin > len(content):
        raise ValueError("it is no file of tensors")
    header = documents.parse(content[_LENGTH_BYTES:begin])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop(_METADATA, None)
    end = 0
    for first, last, name in sorted(_place(name, tensor) for name, tensor in header.items()):
        if first != end:
            raise ValueError(f"its header lies about where tensor {name!r:.80} is")
        end = last
    if begin + end != len(content):
        raise ValueError(f"its header describes {begin + end} bytes, and it has {len(content)}")


def _place(name: str, tensor: Any) -> tuple[int, int, str]:
    """Where a tensor begins and ends, behind the header."""
    try:
        first, last = tensor["data_offsets"]
        shape = [int(side) for side in tensor["shape"]]
        num_bits = math.prod(shape) * _BITS_OF_TYPE[tensor["dtype"]]
        is_right = min(shape, default=0) >= 0 and 8 * (int(last) - int(first)) == num_bits and int(first) >= 0
    except (KeyError, TypeError, ValueError, OverflowError):
        is_right = False
    if not is_right:
        raise ValueError(f"its header lies about the shape or type of tensor {name!r:.80}")
    return int(first), int(last), name
