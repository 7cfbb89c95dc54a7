"""A checkpoint's tensors go out and come back to the bit, and only into the model that they came from."""

import pytest
import torch

from orchestrator.errors import CheckpointError
from orchestrator.models import create_model
from orchestrator.train.checkpoint import (
    MODEL,
    OPTIMIZER,
    STATE,
    TrainingState,
    load_model,
    read_state,
    snapshot,
    unpack,
)

STATE_NUMBERS = TrainingState(
    numerics_fingerprint="sha256:0", world_size=2, step=7, epoch_loss_sum=0.1 + 0.2, best_top1=12.5
)


def _trained(name: str = "densenet_demo", num_classes: int = 10) -> tuple[torch.nn.Module, torch.optim.SGD]:
    model = create_model(name, num_classes=num_classes, seed=0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(2):
        model(torch.randn(2, 3, 32, 32)).sum().backward()
        optimizer.step()
    return model, optimizer


def test_everything_comes_back_to_the_bit() -> None:
    model, optimizer = _trained()
    contents = snapshot(model, optimizer, STATE_NUMBERS).pack()
    other, other_optimizer = _trained()
    assert unpack(contents, other, other_optimizer, source="x") == STATE_NUMBERS
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        momentum = other_optimizer.state[theirs]["momentum_buffer"]
        assert torch.equal(optimizer.state[ours]["momentum_buffer"], momentum)
        assert momentum.stride() == theirs.stride()
    assert snapshot(other, other_optimizer, STATE_NUMBERS).pack() == contents


def test_another_models_checkpoint_is_refused_with_what_does_not_fit() -> None:
    contents = snapshot(*_trained(), STATE_NUMBERS).pack()
    with pytest.raises(CheckpointError, match=r"from another model: .* of another shape, such as classifier\.bias"):
        load_model(contents, create_model("densenet_demo", num_classes=7, seed=0), source="step-1")


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
def test_tensors_that_are_no_safetensors_are_refused(name: str) -> None:
    model, optimizer = _trained()
    contents = snapshot(model, optimizer, STATE_NUMBERS).pack() | {name: b"\x80\x04not safetensors"}
    with pytest.raises(CheckpointError, match=name):
        unpack(contents, model, optimizer, source="step-1")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format_version": 2}', b'{"format_version": 1, "step": 1}'])
def test_a_state_that_cannot_be_understood_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError, match=STATE):
        read_state({STATE: content}, source="step-1")
