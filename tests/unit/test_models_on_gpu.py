"""On a GPU the models promise what they promise on a CPU."""

import copy

import pytest
import torch

from orchestrator.models import create_model, set_sample_keys

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_masks_are_those_of_the_cpu():
    on_cpu = create_model("densenet_demo", drop_rate=0.3, seed=0)
    on_gpu = copy.deepcopy(on_cpu).cuda()
    indices = torch.tensor([3, 1_281_166])
    masks = []
    for model in (on_cpu, on_gpu):
        set_sample_keys(model, seed=1, epoch=2, indices=indices)
        dropout = model.features.denseblock1.denselayer1.drop2
        masks.append(dropout.kept(torch.Size([2, 12, 32, 32]), dropout.keys).cpu())
    assert torch.equal(*masks)


def test_a_batch_of_no_images_passes_and_leaves_statistics_alone():
    model = create_model("densenet_demo", seed=0).cuda()
    before = copy.deepcopy(model.state_dict())
    model(torch.empty(0, 3, 32, 32, device="cuda")).sum().backward()
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "num_batches_tracked" not in name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_gradients_are_bitwise_equal(dtype):
    kept = create_model("densenet_demo", num_classes=10, seed=0).cuda().to(memory_format=torch.channels_last)
    recomputing = copy.deepcopy(kept)
    recomputing.set_grad_checkpointing(True)
    images = torch.randn(8, 3, 32, 32, device="cuda")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for model in (kept, recomputing):
            with torch.autocast("cuda", dtype=dtype, enabled=dtype is not torch.float32):
                logits = model(images)
            logits.float().square().sum().backward()
    for ours, theirs in zip(recomputing.parameters(), kept.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
