"""The networks have the parameter counts of the paper, and what can't be a DenseNet is refused in words."""

import pytest

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.plan.architecture import DENSENETS, DenseNetArchitecture
from orchestrator.plan.footprint import footprint
from orchestrator.plan.networks import FAMILIES, NETWORKS, find_architecture, find_network

IMAGENET_PARAMETERS = {
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "densenet161": 28_681_000,
}

# With 10 classes: the rows of the paper's Table 2, and the wide ones of the authors' README (1.5M, 2.7M, 4.3M).
CIFAR_PARAMETERS = {
    "densenet40_12": 1_019_722,
    "densenet100_12": 6_979_642,
    "densenet100_24": 27_249_082,
    "densenetbc100_12": 769_162,
    "densenetbc250_24": 15_324_406,
    "densenetbc190_40": 25_624_430,
    "densenetbc40_36": 1_542_682,
    "densenetbc40_48": 2_733_130,
    "densenetbc40_60": 4_261_690,
}

# Millions, as Table 2 prints them. He et al. count pre-activation ResNets without their norms.
BASELINE_MILLIONS = {
    "cifarresnet110": 1.7,
    "preresnet164": 1.7,
    "preresnet1001": 10.2,
    "wideresnet16_4": 2.7,
    "wideresnet16_8": 11.0,
    "wideresnet28_10": 36.5,
}


@pytest.mark.parametrize(("name", "num_parameters"), IMAGENET_PARAMETERS.items())
def test_imagenet_networks_have_the_published_parameter_counts(name, num_parameters):
    cost = footprint(DENSENETS[name], num_classes=1000, image_size=224)
    assert cost.num_parameters == num_parameters


@pytest.mark.parametrize(("name", "num_parameters"), CIFAR_PARAMETERS.items())
def test_cifar_networks_have_the_published_parameter_counts(name, num_parameters):
    assert footprint(NETWORKS[name], num_classes=10, image_size=32).num_parameters == num_parameters


@pytest.mark.parametrize(("name", "millions"), BASELINE_MILLIONS.items())
def test_baselines_have_the_parameter_counts_of_the_table(name, millions):
    count = footprint(NETWORKS[name], num_classes=10, image_size=32).num_parameters
    norms = 149_216 if name == "preresnet1001" else 0
    assert round((count - norms) / 1e6, 1) == millions


def test_each_letter_of_a_family_changes_one_thing():
    basic, b, c, bc = (find_architecture(f"densenet{letters}100_12") for letters in ("", "b", "c", "bc"))
    assert [(each.bn_size, each.compression) for each in (basic, b, c, bc)] == [(0, 1.0), (4, 1.0), (0, 0.5), (4, 0.5)]
    assert [each.num_init_features for each in (basic, b, c, bc)] == [16, 16, 16, 24]
    assert [each.block_config for each in (basic, b, c, bc)] == [(32,) * 3, (16,) * 3, (32,) * 3, (16,) * 3]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("densenet41_12", "depth is 41, must be 3n + 4 with n at least 1; nearest are 40 and 43"),
        ("densenetbc101_12", "must be 6n + 4 with n at least 1; nearest are 100 and 106"),
        ("densenetb3_12", "nearest is 10"),
        ("cifarresnet111", "must be 6n + 2 with n at least 1; nearest are 110 and 116"),
        ("preresnet165", "must be 9n + 2 with n at least 1; nearest are 164 and 173"),
        ("wideresnet29_10", "must be 6n + 4 with n at least 1; nearest are 28 and 34"),
        ("densenetbc100_0", "growth_rate is 0, must be at least 1"),
        ("densenetbc", "is a family of networks: name one in full, such as densenetbc100_12, or give depth and growth"),
        ("preresnet", "is a family of networks: name one in full, such as preresnet164"),
    ],
)
def test_what_no_network_of_a_family_can_be_is_refused_with_what_can(name, said):
    with pytest.raises(UsageError) as caught:
        find_architecture(name)
    assert said in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_depth_that_fits_is_built_and_counts_itself(family):
    """The depth of a name counts convolutions in series and the classifier."""
    for n in (1, 2, 7):
        depth = FAMILIES[family].layers_per_n * n + FAMILIES[family].other_layers
        shape = find_architecture(f"{family}{depth}" + ("_4" if FAMILIES[family].width else ""))
        if isinstance(shape, DenseNetArchitecture):
            in_blocks = sum(shape.block_config) * (2 if shape.bn_size else 1)
            assert depth == 1 + in_blocks + len(shape.block_config) - 1 + 1
        else:
            assert depth in {
                1 + shape.num_units * (3 if shape.unit == "bottleneck" else 2) + 1 + projections
                for projections in (0, 2)
            }


def test_parts_of_a_network_can_be_changed_one_by_one():
    assert find_network("densenetbc100_12", depth=40).name == "densenetbc40_12"
    assert find_network("densenetbc", depth=40, growth_rate=36) == find_network("densenetbc40_36")
    changed = find_network("densenet121", compression=0.25)
    assert changed.architecture.compression == 0.25
    for changes, said in (
        ({"depth": 100}, "defined by its blocks and has no depth to set"),
        ({"growth_rate": 12}, "defined by its blocks and has no growth_rate to set"),
        ({"compression": 1.5}, "compression is 1.5, must be above 0 and at most 1"),
    ):
        with pytest.raises(UsageError, match=said):
            find_network("densenet121", **changes)
    for changes, said in (({"growth_rate": 12}, "no growth_rate"), ({"compression": 0.5}, "no compression")):
        with pytest.raises(UsageError, match=said):
            find_network("preresnet164", **changes)


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
