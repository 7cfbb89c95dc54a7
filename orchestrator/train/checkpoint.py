"""The tensors of a checkpoint: everything that the next step depends on, as bytes and back.

model.safetensors holds parameters and buffers, optimizer.safetensors the momentum of each parameter by its name,
state.json the rest. Nothing in them can execute code.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from orchestrator.errors import CheckpointError
from orchestrator.run import documents
from orchestrator.run.contents import MODEL, OPTIMIZER, STATE
from orchestrator.train.weights import load_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """The numbers beside the tensors. Sums are over the images of the current epoch."""

    numerics_fingerprint: str
    world_size: int
    step: int
    """Optimiser steps done since the run began; the next one has this number."""
    epoch_loss_sum: float = 0.0
    epoch_num_correct: int = 0
    epoch_num_images: int = 0
    train_top1: float | None = None
    """Of the latest whole epoch, in percent; likewise the next three of validation."""
    top1: float | None = None
    top5: float | None = None
    best_top1: float | None = None
    test_top1: float | None = None
    """Of the test set, in percent, where images are held out; likewise the next."""
    test_top5: float | None = None
    grad_scaler: dict[str, Any] | None = None
    guard: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a checkpoint is made of, copied to the host: training may go on while it is written."""

    model: Mapping[str, Tensor]
    momenta: Mapping[str, Tensor]
    state: TrainingState

    def pack(self) -> dict[str, bytes]:
        """The files of the checkpoint, by name."""
        return {
            MODEL: save(dict(self.model)),
            OPTIMIZER: save(dict(self.momenta)),
            STATE: json.dumps({"format_version": 1, **asdict(self.state)}, indent=2).encode(),
        }


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState) -> Snapshot:
    """Copy everything that the next step depends on, in plain layout, sharing memory with nothing."""
    momenta = {}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            momenta[name] = _to_host(momentum)
    tensors = {name: _to_host(tensor) for name, tensor in model.state_dict().items()}
    if torch.cuda.is_available() and next(model.parameters()).is_cuda:
        torch.cuda.current_stream().synchronize()
    return Snapshot(model=tensors, momenta=momenta, state=state)


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in plain layout; from a GPU it is there once the stream is synchronised."""
    tensor = tensor.detach()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor, non_blocking=tensor.is_cuda)


def unpack(
    contents: Mapping[str, bytes], model: nn.Module, optimizer: torch.optim.Optimizer, *, source: str
) -> TrainingState:
    """Put a checkpoint into a model and its optimiser. Raises CheckpointError if it is another model's.

    source: what to call the checkpoint in a message.
    """
    state = read_state(contents, source=source)
    load_model(contents, model, source=source)
    momenta = _load_tensors(contents, OPTIMIZER, source)
    parameters = dict(model.named_parameters())
    if not momenta.keys() <= parameters.keys():
        raise CheckpointError(f"checkpoint {source}: {OPTIMIZER} has momentum for parameters that the model hasn't")
    for name, momentum in momenta.items():
        parameter = parameters[name]
        if momentum.shape != parameter.shape:
            raise CheckpointError(
                f"checkpoint {source}: the momentum of {name} is {list(momentum.shape)}, not {list(parameter.shape)}"
            )
        of_parameter = optimizer.state[parameter]
        if of_parameter.get("momentum_buffer") is None:
            of_parameter["momentum_buffer"] = torch.empty_like(parameter, memory_format=torch.preserve_format)
        of_parameter["momentum_buffer"].copy_(momentum)  # where it is: a recorded step knows it by its address
    return state


def load_model(contents: Mapping[str, bytes], model: nn.Module, *, source: str) -> None:
    """Put a checkpoint's parameters and buffers into a model. Raises CheckpointError naming what doesn't fit."""
    tensors = _load_tensors(contents, MODEL, source)
    load_weights(model, tensors, source=f"checkpoint {source}", advice="give the model it was made with")


def read_state(contents: Mapping[str, bytes], *, source: str) -> TrainingState:
    """The numbers of a checkpoint. Raises CheckpointError."""
    try:
        document = documents.parse(contents[STATE])
        version = document.pop("format_version")
        if version != 1:
            raise CheckpointError(f"checkpoint {source}: {STATE} has format version {version}, this dnctl reads 1")
        return documents.record(TrainingState, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {source}: {STATE} can't be read ({error})") from error


def _load_tensors(contents: Mapping[str, bytes], name: str, source: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(contents[name])
    except KeyError:
        raise CheckpointError(f"checkpoint {source} has no {name}") from None
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {source}: {name} can't be read ({error})") from error
    return tensors
