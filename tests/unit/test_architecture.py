"""The networks have the parameter counts of the paper, and what can't be a DenseNet is refused in words."""

import pytest

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.plan.architecture import DENSENETS, DenseNetArchitecture, find_architecture, known_model
from orchestrator.plan.footprint import footprint

IMAGENET_PARAMETERS = {
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "densenet161": 28_681_000,
}

# Depth L, growth rate k, bottleneck and compression: parameters with 10 classes.
CIFAR_PARAMETERS = [
    (40, 12, False, 1_019_722),
    (100, 12, False, 6_979_642),
    (100, 24, False, 27_249_082),
    (100, 12, True, 769_162),
    (250, 24, True, 15_324_406),
    (190, 40, True, 25_624_430),
]


def cifar_densenet(depth: int, growth_rate: int, bottleneck: bool) -> DenseNetArchitecture:
    num_layers = (depth - 4) // (6 if bottleneck else 3)
    return DenseNetArchitecture(
        growth_rate=growth_rate,
        block_config=(num_layers,) * 3,
        num_init_features=2 * growth_rate if bottleneck else 16,
        bn_size=4 if bottleneck else 0,
        compression=0.5 if bottleneck else 1.0,
        stem="cifar",
    )


@pytest.mark.parametrize(("name", "num_parameters"), IMAGENET_PARAMETERS.items())
def test_imagenet_networks_have_the_published_parameter_counts(name, num_parameters):
    cost = footprint(DENSENETS[name], num_classes=1000, image_size=224)
    assert cost.num_parameters == num_parameters


@pytest.mark.parametrize(("depth", "growth_rate", "bottleneck", "num_parameters"), CIFAR_PARAMETERS)
def test_cifar_networks_have_the_published_parameter_counts(depth, growth_rate, bottleneck, num_parameters):
    architecture = cifar_densenet(depth, growth_rate, bottleneck)
    assert footprint(architecture, num_classes=10, image_size=32).num_parameters == num_parameters


def test_output_sizes_are_those_of_table_1():
    rows = footprint(DENSENETS["densenet169"], num_classes=1000, image_size=224).rows
    sides = {row.stage: row.output for row in rows}
    assert sides == {
        "Convolution": "64x112x112",
        "Pooling": "64x56x56",
        "Block 1": "256x56x56",
        "Transition 1": "128x28x28",
        "Block 2": "512x28x28",
        "Transition 2": "256x14x14",
        "Block 3": "1280x14x14",
        "Transition 3": "640x7x7",
        "Block 4": "1664x7x7",
        "Classification": "1000",
    }


def test_layer_l_reads_the_block_s_input_and_l_minus_1_growth_rates():
    architecture = DenseNetArchitecture(
        growth_rate=5, block_config=(3,), num_init_features=7, bn_size=0, compression=1.0, stem="cifar"
    )
    block = next(row for row in footprint(architecture, num_classes=2, image_size=8).rows if row.stage == "Block 1")
    assert block.num_parameters == sum(2 * width + 9 * width * 5 for width in (7, 12, 17))


def test_a_transition_rounds_the_channels_it_keeps_down():
    architecture = DenseNetArchitecture(
        growth_rate=3, block_config=(1, 1), num_init_features=4, compression=0.5, stem="cifar"
    )
    assert [block.transition_channels for block in architecture.blocks()] == [3, None]
    assert architecture.num_features == 6


def test_recomputation_keeps_less_than_half():
    cost = footprint(DENSENETS["densenet121"], num_classes=1000, image_size=224)
    for precision in ("fp32", "bf16"):
        recomputing = cost.activation_bytes_per_image(precision, memory_efficient=True)
        assert recomputing < 0.5 * cost.activation_bytes_per_image(precision)


def test_images_that_vanish_on_the_way_are_refused():
    with pytest.raises(UsageError, match="16 px are too small: nothing is left of them at block 4"):
        footprint(DENSENETS["densenet121"], num_classes=10, image_size=16)


def test_all_faults_of_an_architecture_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        DenseNetArchitecture(growth_rate=0, block_config=(6, 0), num_init_features=64, compression=1.5)
    for field in ("growth_rate is 0", "block_config is (6, 0)", "compression is 1.5"):
        assert field in str(caught.value)


def test_a_compression_that_leaves_no_channel_is_refused():
    with pytest.raises(UsageError, match="leaves a transition without channels"):
        DenseNetArchitecture(growth_rate=1, block_config=(1, 1), num_init_features=1, compression=0.1)


def test_an_unknown_name_brings_the_nearest_ones():
    with pytest.raises(NotFoundError, match="densenet169"):
        find_architecture("densenet168")


@pytest.mark.parametrize(
    ("name", "known"), [("densenet121", True), ("timm:resnet50", True), ("timm:", False), ("resnet50", False)]
)
def test_known_models_are_ours_and_timm_s(name, known):
    assert known_model(name) is known
