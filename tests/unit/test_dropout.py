"""A sample's dropout mask is its own: the same in any batch, order, memory format and pass."""

import copy

import pytest
import torch
from torch import Tensor, nn

from orchestrator.models import SampleDropout, clear_sample_keys, create_model, set_sample_keys
from orchestrator.philox import philox4x32


def dropped(indices: list[int], *, p: float = 0.3, seed: int = 1, epoch: int = 2, layer: int = 0) -> Tensor:
    """Which values of samples of shape [5, 3, 3] are zeroed."""
    dropout = SampleDropout(p, layer=layer)
    # A dropout has no parameters, so it is given a neighbour whose device is the model's.
    set_sample_keys(
        nn.Sequential(dropout, nn.Linear(1, 1)),
        seed=seed,
        epoch=epoch,
        indices=torch.tensor(indices, dtype=torch.int64),
    )
    return dropout(torch.ones(len(indices), 5, 3, 3)) == 0


def test_a_sample_s_mask_does_not_depend_on_its_batch():
    together = dropped([7, 1_281_166, 3])
    for position, index in enumerate([7, 1_281_166, 3]):
        assert torch.equal(together[position], dropped([index])[0])


@pytest.mark.parametrize("changed", [{"seed": 2}, {"seed": 1 << 32}, {"epoch": 3}, {"layer": 1}])
def test_masks_differ_by_seed_epoch_and_layer(changed):
    assert not torch.equal(dropped([7]), dropped([7], **changed))


def test_masks_differ_by_sample():
    assert not torch.equal(*dropped([7, 8]))


def test_a_mask_is_made_of_halves_of_philox_words():
    words = philox4x32((torch.arange(6), 3 + (4 << 8), torch.tensor([11]), 2), (1, 0))
    lanes = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=-1).flatten()
    expected = (lanes < round(0.3 * 65536))[:45].view(5, 3, 3)
    assert torch.equal(dropped([11], layer=4)[0], expected)


def test_kept_values_are_scaled_so_that_the_mean_stays():
    dropout = SampleDropout(0.2)
    set_sample_keys(nn.Sequential(dropout, nn.Linear(1, 1)), seed=0, epoch=0, indices=torch.arange(64))
    values = dropout(torch.ones(64, 8, 16, 16))
    kept = values[values != 0]
    assert torch.allclose(kept, torch.tensor(65536 / (65536 - 13107)))
    assert values.mean().item() == pytest.approx(1, abs=0.01)
    assert (values == 0).double().mean().item() == pytest.approx(0.2, abs=0.005)


def test_the_gradient_passes_where_the_value_did():
    dropout = SampleDropout(0.5)
    set_sample_keys(nn.Sequential(dropout, nn.Linear(1, 1)), seed=0, epoch=0, indices=torch.arange(2))
    features = torch.randn(2, 4, 5, 5, requires_grad=True)
    result = dropout(features)
    result.sum().backward()
    assert torch.equal(features.grad, torch.where(result == 0, 0.0, 2.0))


def test_the_mask_is_the_same_in_channels_last_and_the_format_is_kept():
    features = torch.randn(2, 5, 3, 3)
    dropout = SampleDropout(0.3)
    set_sample_keys(nn.Sequential(dropout, nn.Linear(1, 1)), seed=1, epoch=2, indices=torch.tensor([7, 3]))
    result = dropout(features.to(memory_format=torch.channels_last))
    assert torch.equal(result, dropout(features))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_in_eval_mode_and_without_probability_nothing_happens():
    features = torch.randn(2, 5, 3, 3)
    assert SampleDropout(0.3).eval()(features) is features
    assert SampleDropout(0.0)(features) is features


def test_without_keys_it_is_torch_s_dropout():
    features = torch.randn(2, 5, 3, 3)
    torch.manual_seed(0)
    expected = nn.functional.dropout(features, 0.3)
    torch.manual_seed(0)
    assert torch.equal(SampleDropout(0.3)(features), expected)


def test_an_empty_batch_passes():
    assert dropped([]).shape == (0, 5, 3, 3)


def test_a_batch_that_was_not_announced_is_refused():
    dropout = SampleDropout(0.3)
    set_sample_keys(nn.Sequential(dropout, nn.Linear(1, 1)), seed=1, epoch=2, indices=torch.tensor([7, 3]))
    with pytest.raises(ValueError, match="holds 3 samples, but 2 were announced"):
        dropout(torch.ones(3, 5))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_impossible_probabilities_are_refused(p):
    with pytest.raises(ValueError, match="must be in"):
        SampleDropout(p)


def test_a_model_numbers_its_dropouts_in_order_and_has_one_behind_every_convolution_but_the_first():
    model = create_model("densenet_demo", drop_rate=0.2)
    layers = [module.layer for module in model.modules() if isinstance(module, SampleDropout)]
    num_convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert layers == list(range(num_convolutions - 1))


def test_a_model_s_output_for_a_sample_depends_on_its_keys_alone():
    model = create_model("densenet_demo", num_classes=10, drop_rate=0.2, seed=0).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # so that samples meet nowhere
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    set_sample_keys(model, seed=5, epoch=1, indices=torch.tensor([10, 11, 12]))
    together = model(images)
    set_sample_keys(copied := copy.deepcopy(model), seed=5, epoch=1, indices=torch.tensor([11]))
    assert torch.allclose(copied(images[1:2])[0], together[1], rtol=1e-12)
    clear_sample_keys(model)
    assert not torch.allclose(model(images), together)
