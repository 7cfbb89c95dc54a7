"""Feature reuse: what the heat map shows of known weights, by the names that our networks give them."""

import numpy as np
import pytest

from orchestrator.models import create_model
from orchestrator.plan.networks import find_architecture
from orchestrator.report.reuse import feature_reuse
from tests.report_runs import densenet_weights


def _two_layers() -> dict[str, np.ndarray]:
    """A block of an input of 3 maps and two layers of 2 maps each, read by the classifier."""
    first = np.full((2, 3, 3, 3), -4.0)
    second = np.concatenate([np.full((2, 3, 3, 3), 1.0), np.full((2, 2, 3, 3), -2.0)], axis=1)
    classifier = np.concatenate([np.full((10, 3), 3.0), np.full((10, 2), 0.5), np.full((10, 2), -0.25)], axis=1)
    return {
        "features.denseblock1.denselayer1.conv1.weight": first,
        "features.denseblock1.denselayer2.conv1.weight": second,
        "classifier.weight": classifier,
    }


def test_each_connection_is_the_mean_absolute_weight_whatever_the_number_of_maps():
    (block,) = feature_reuse(_two_layers())
    nan = np.nan
    np.testing.assert_array_equal(block.strength, [[4.0, 1.0, 3.0], [nan, 2.0, 0.5], [nan, nan, 0.25]])
    assert (block.num_layers, block.last_reader) == (2, "classifier")


@pytest.mark.parametrize("name", ["densenet40_12", "densenetbc40_12"])
def test_blocks_end_in_their_transition_and_the_last_one_in_the_classifier(name: str):
    depth = find_architecture(name).block_config[0]
    blocks = feature_reuse(densenet_weights(find_architecture(name)))
    assert [block.last_reader for block in blocks] == ["transition", "transition", "classifier"]
    assert [block.strength.shape for block in blocks] == [(depth + 1, depth + 1)] * 3
    for block in blocks:
        above = np.triu(np.ones_like(block.strength, dtype=bool))
        assert np.isfinite(block.strength[above]).all()
        assert np.isnan(block.strength[~above]).all()


def test_weights_of_our_networks_have_the_names_that_are_looked_for():
    model = create_model("densenetbc40_12", num_classes=10)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert [block.num_layers for block in feature_reuse(weights)] == [6, 6, 6]
    known = densenet_weights(find_architecture("densenetbc40_12"))
    assert {name: weights[name].shape for name in known} == {name: value.shape for name, value in known.items()}


def test_a_network_that_is_no_densenet_has_no_blocks():
    assert feature_reuse({"layer1.0.conv1.weight": np.ones((4, 4, 3, 3))}) == ()
    only_some = {name: value for name, value in _two_layers().items() if "denselayer1" not in name}
    assert feature_reuse(only_some) == ()
