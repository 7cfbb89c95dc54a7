"""Recomputation changes what is kept, and nothing else: not a bit of a gradient, not a running statistic."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.models import clear_sample_keys, create_model, set_sample_keys

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def kept_and_recomputing(**options) -> tuple[nn.Module, nn.Module]:
    kept = create_model("densenet_demo", num_classes=10, seed=0, **options)
    recomputing = copy.deepcopy(kept)
    recomputing.set_grad_checkpointing(True)
    return kept, recomputing


def state_after(model: nn.Module, *batches: Tensor) -> dict[str, Tensor]:
    """Gradients summed over the batches, and the buffers that they leave."""
    torch.manual_seed(3)
    for batch in batches:
        model(batch).float().square().sum().backward()
    gradients = {f"{name}.grad": parameter.grad for name, parameter in model.named_parameters()}
    return {**gradients, **dict(model.named_buffers())}


def assert_bitwise_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("bn_size", [0, 4])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_and_statistics_are_bitwise_equal(bn_size, training):
    models = kept_and_recomputing(bn_size=bn_size)
    assert_bitwise_equal(*(state_after(model.train(training), IMAGES) for model in models))


def test_statistics_are_updated_once_a_forward_pass():
    _, model = kept_and_recomputing()
    state = state_after(model, IMAGES, IMAGES)
    assert {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")} == {2}


@pytest.mark.parametrize("keyed", [False, True])
def test_dropout_zeroes_the_same_values(keyed):
    models = kept_and_recomputing(drop_rate=0.3)
    for model in models:
        clear_sample_keys(model)
        if keyed:
            set_sample_keys(model, seed=1, epoch=2, indices=torch.arange(6))
    assert_bitwise_equal(*(state_after(model, IMAGES) for model in models))


def test_it_holds_under_autocast():
    states = []
    for model in kept_and_recomputing():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(IMAGES)
        assert logits.dtype == torch.bfloat16
        logits.float().square().sum().backward()
        states.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert_bitwise_equal(*states)


def test_it_holds_in_channels_last():
    models = (model.to(memory_format=torch.channels_last) for model in kept_and_recomputing())
    images = IMAGES.to(memory_format=torch.channels_last)
    assert_bitwise_equal(*(state_after(model, images) for model in models))


@pytest.fixture
def single_process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("single_process_group")
def test_it_holds_under_ddp_with_accumulated_backward_passes():
    def accumulate(model: nn.Module) -> dict[str, Tensor]:
        wrapped = DistributedDataParallel(model)
        with wrapped.no_sync():
            wrapped(IMAGES[:2]).square().sum().backward()
            wrapped(IMAGES[2:4]).square().sum().backward()
        return state_after(wrapped, IMAGES[4:])

    assert_bitwise_equal(*(accumulate(model) for model in kept_and_recomputing()))


def test_buffers_stay_the_tensors_that_they_were():
    _, model = kept_and_recomputing()
    before = dict(model.named_buffers())
    state_after(model, IMAGES)
    assert all(buffer is before[name] for name, buffer in model.named_buffers())


def test_no_convolution_is_computed_twice():
    operations = []
    for model in kept_and_recomputing():
        with FlopCounterMode(display=False) as counter:
            state_after(model, IMAGES)
        operations.append(counter.get_total_flops())
    assert operations[0] == operations[1]
