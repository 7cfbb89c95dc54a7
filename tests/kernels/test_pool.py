"""The stem's max pool and its gradient are torch's."""

import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 5), (1, 1)])
def test_as_torch_s_with_ties_and_what_is_no_number(device, dtype, height, width):
    from orchestrator.models.block.triton.pool import max_pool

    generator = torch.Generator().manual_seed(0)
    maps = (torch.randn(2, 5, height, width, generator=generator) * 2).round().to(device, dtype)
    maps[0, 0, 0, 0] = torch.nan
    ours, theirs = (maps.to(memory_format=torch.channels_last).clone().requires_grad_() for _ in range(2))
    pooled, expected = max_pool(ours), F.max_pool2d(theirs, 3, stride=2, padding=1)
    assert torch.equal(pooled.nan_to_num(99.0), expected.nan_to_num(99.0))
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    upstream = torch.randint(-8, 8, expected.shape, generator=generator).to(device, dtype)  # its sums are exact
    pooled.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(ours.grad, theirs.grad)


def test_of_no_images(device):
    from orchestrator.models.block.triton.pool import max_pool

    maps = torch.empty(0, 5, 8, 8, device=device, requires_grad=True)
    max_pool(maps).sum().backward()
    assert maps.grad.shape == maps.shape
