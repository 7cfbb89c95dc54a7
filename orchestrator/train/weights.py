"""Given weights: state_dicts of timm, torchvision or our own, read without executing code, and put into a network."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from orchestrator.errors import CheckpointError
from orchestrator.plan.plan import Plan
from orchestrator.run.weights_file import WeightsFile, read_weights_file

# torchvision's files of DenseNets hold names from before its layers had plain ones: `norm.1` for `norm1`.
_OLD_LAYER_NAME: Final = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")
_DATA_PARALLEL: Final = "module."


def state_dict_of(weights: WeightsFile) -> dict[str, Tensor]:
    """The tensors of a file by the names that models of today have. Raises CheckpointError."""
    tensors = _safetensors(weights) if weights.is_safetensors else _torch_file(weights)
    if all(name.startswith(_DATA_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_DATA_PARALLEL): tensor for name, tensor in tensors.items()}
    return {_OLD_LAYER_NAME.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}


def _safetensors(weights: WeightsFile) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(weights.content)
    except SafetensorError as error:
        raise CheckpointError(f"{weights.path} can't be read as weights: {error}") from error
    return tensors


def _torch_file(weights: WeightsFile) -> dict[str, Tensor]:
    try:
        document = torch.load(io.BytesIO(weights.content), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{weights.path} can't be read as weights: {str(error).splitlines()[0]}") from error
    except Exception as error:  # torch's unpickler raises its own errors for whatever it doesn't allow
        raise CheckpointError(
            f"{weights.path} holds more than tensors, so it isn't read; save its state_dict alone"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
    if not isinstance(document, dict) or not all(isinstance(value, Tensor) for value in document.values()):
        raise CheckpointError(f"{weights.path} is no state_dict: a mapping of names to tensors")
    return document


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str, advice: str) -> None:
    """Put tensors into a model, which must have just those. Raises CheckpointError naming what doesn't fit.

    source, advice: what to call the tensors in a message, and what to do if they don't fit.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - expected.keys())
    reshaped = sorted(name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape)
    if missing or surplus or reshaped:
        example = (reshaped + missing + surplus)[0]
        shapes = (list(each[example].shape) if example in each else "nothing" for each in (tensors, expected))
        raise CheckpointError(
            f"{source} is from another model: {len(missing)} tensors are missing, {len(surplus)} unknown, "
            f"{len(reshaped)} of another shape, such as {example} ({' where the model has '.join(map(str, shapes))}); "
            f"{advice}"
        )
    model.load_state_dict(dict(tensors))


def start_from_given_weights(plan: Plan, model: nn.Module) -> tuple[str, ...]:
    """Put the weights that the plan names into a new model; returns the names of those left at random.

    A classifier of another number of classes is left at random. Raises NotFoundError, StorageError or CheckpointError.
    """
    assert plan.execution.weights is not None
    weights = read_weights_file(Path(plan.execution.weights))
    if weights.sha256 != plan.numerics.model.weights_sha256:
        raise CheckpointError(
            f"{weights.path} is not what this run was planned with: its SHA-256 is {weights.sha256}, the plan says "
            f"{plan.numerics.model.weights_sha256}; put the file back, or start a new run"
        )
    tensors = state_dict_of(weights)
    own = model.state_dict()
    left_out = tuple(
        name for name in _classifier_names(model) if name in tensors and tensors[name].shape != own[name].shape
    )
    tensors |= {name: own[name] for name in left_out}
    load_weights(model, tensors, source=str(weights.path), advice="give the model.name that they were trained with")
    return left_out


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    get_classifier: Any = getattr(model, "get_classifier", None)  # timm's way to it
    classifier = model.get_submodule("classifier") if get_classifier is None else get_classifier()
    if not isinstance(classifier, nn.Module):
        return ()
    parameters = {id(parameter) for parameter in classifier.parameters()}
    return tuple(name for name, parameter in model.named_parameters() if id(parameter) in parameters)
