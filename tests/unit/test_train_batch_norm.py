"""Running statistics take one update a step, from the mean of the groups'; names and values stay torch's."""

import copy

import pytest
import torch
from torch import nn

from orchestrator.train.batch_norm import RunningStatistics


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, momentum=0.3))
    network(torch.randn(8, 3, 6, 6))  # away from 0 and 1
    return network


def _step(statistics: RunningStatistics, network: nn.Module, groups: list[torch.Tensor]) -> None:
    with statistics.step():
        for group in groups:
            network(group)
            statistics.add_group(1.0)
    statistics.update(len(groups), admitted=torch.tensor(True))


def test_one_group_updates_as_torch_does() -> None:
    network, images = _network(), torch.randn(8, 3, 6, 6)
    reference = copy.deepcopy(network)
    reference(images)
    _step(RunningStatistics(network), network, [images])
    for name, expected in reference.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], expected)


def test_several_groups_make_one_update_from_their_mean() -> None:
    network, groups = _network(), [torch.randn(8, 3, 6, 6) for _ in range(3)]
    before, mean = network[1].running_mean.clone(), torch.zeros(4)
    for group in groups:
        mean += network[0](group).mean((0, 2, 3)) / 3
    _step(RunningStatistics(network), network, groups)
    torch.testing.assert_close(network[1].running_mean, 0.9 * before + 0.1 * mean)
    assert network[1].num_batches_tracked == 2
    assert (network[1].momentum, network[3].momentum) == (0.1, 0.3)


def test_taking_over_the_buffers_changes_neither_names_nor_values() -> None:
    network = _network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    RunningStatistics(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    network.load_state_dict(before)  # copies into the views
    network.eval()
    assert network(torch.randn(2, 3, 6, 6)).shape == (2, 4, 4, 4)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_group_are_weighed_so_that_the_group_counts_once(parts: int) -> None:
    network, images = _network(), torch.randn(8, 3, 6, 6)
    whole, shared = copy.deepcopy(network), network
    _step(RunningStatistics(whole), whole, [images])
    statistics = RunningStatistics(shared)
    with statistics.step():
        for _ in range(parts):  # ranks that share a group all hold its statistics
            shared(images)
            statistics.add_group(1 / parts)
    statistics.update(1, admitted=torch.tensor(True))
    torch.testing.assert_close(shared[1].running_var, whole[1].running_var)


def test_a_step_that_is_refused_leaves_the_statistics_as_they_were() -> None:
    network = _network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    statistics = RunningStatistics(network)
    with statistics.step():
        network(torch.full((4, 3, 6, 6), torch.nan))
        statistics.add_group(1.0)
    statistics.update(1, admitted=torch.tensor(False))
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)


def test_buffers_begin_where_a_gpu_can_write_16_bytes_at_once() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(27), nn.BatchNorm2d(5))
    RunningStatistics(model)
    assert all(buffer.data_ptr() % 16 == 0 for name, buffer in model.named_buffers() if "running" in name)
