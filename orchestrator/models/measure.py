"""What any model costs, found by running it on torch's meta device, where tensors have shapes and no values.

For models that no formula of ours describes. For ours it comes to what `plan/footprint.py` counts, which is how that
is tested.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.errors import UsageError
from orchestrator.plan.stage_costs import Footprint, FootprintRow

_FLOPS_PER_MULTIPLY_ADD = 2
_BYTES_PER_INDEX = 8


def measure_footprint(model: nn.Module, *, in_chans: int, image_size: int) -> Footprint:
    """Footprint for one image, a row a stage: the model's children, and those of its `nn.Sequential`s.

    model: float32, in training mode, on the meta device. Multiply-adds are those of convolutions and matrix products.
    A last row holds what is done and kept outside of all stages, if there is any. Raises UsageError for images of a
    size that the model can't take.
    """
    stages = dict(_stages(model))
    smaller, larger = (_Pass(model, stages, num_images, in_chans, image_size) for num_images in (2, 3))
    # What two batches differ by belongs to their images; weights and batch statistics are the same in both.
    cost = Counter({key: larger.cost[key] - smaller.cost[key] for key in larger.cost})
    rows = [_row(name, larger.outputs[name], stage, cost) for name, stage in stages.items()]
    whole = _row("", "", model, cost)
    rest = replace(
        whole,
        stage="(elsewhere)",
        num_parameters=whole.num_parameters - sum(row.num_parameters for row in rows),
        num_multiply_adds=whole.num_multiply_adds - sum(row.num_multiply_adds for row in rows),
    )
    if rest.num_parameters or rest.num_multiply_adds or rest.kept_values or rest.kept_indices:
        rows.append(rest)
    return Footprint(rows=tuple(rows))


def _row(name: str, output: str, stage: nn.Module, cost: Counter[tuple[str, str]]) -> FootprintRow:
    return FootprintRow(
        stage=name,
        output=output,
        layers=type(stage).__name__,
        num_parameters=sum(parameter.numel() for parameter in stage.parameters()),
        num_multiply_adds=cost[name, "flops"] // _FLOPS_PER_MULTIPLY_ADD,
        kept_values=cost[name, "values"],
        kept_values_memory_efficient=cost[name, "values"],
        kept_indices=cost[name, "indices"],
    )


def _stages(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in model.named_children():
        if type(child) is nn.Sequential:
            yield from ((f"{name}.{inner}", grandchild) for inner, grandchild in child.named_children())
        else:
            yield name, child


class _Pass:
    """One forward pass: what each of its stages returned, computed and left for the backward pass.

    cost: by stage and unit: "flops", "values" kept (float32) and "indices" kept (anything else, 8 bytes each). Under
        the name "" are the operations of the whole model, and what was kept outside of all stages.
    """

    def __init__(
        self, model: nn.Module, stages: dict[str, nn.Module], num_images: int, in_chans: int, image_size: int
    ) -> None:
        self.cost: Counter[tuple[str, str]] = Counter()
        self.outputs = dict.fromkeys(stages, "")
        self._stage = ""
        self._kept_storages: dict[int, torch.UntypedStorage] = {}
        images = torch.empty(num_images, in_chans, image_size, image_size, device="meta")
        hooks = [stage.register_forward_pre_hook(partial(self._enter, name)) for name, stage in stages.items()]
        hooks += [stage.register_forward_hook(partial(self._leave, name)) for name, stage in stages.items()]
        with (
            FlopCounterMode(display=False) as counter,
            torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor),
        ):
            _run(model, images)
        for hook in hooks:
            hook.remove()
        flops_by_module = counter.get_flop_counts()
        for name in ("", *stages):
            path = f"{type(model).__name__}.{name}".rstrip(".")
            if path in flops_by_module:
                self.cost[name, "flops"] = sum(flops_by_module[path].values())

    def _enter(self, name: str, _module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        self._stage = name

    def _leave(self, name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
        self._stage = ""
        if isinstance(output, Tensor):
            self.outputs[name] = "x".join(str(side) for side in output.shape[1:])

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._kept_storages:
            self._kept_storages[storage._cdata] = storage  # held, so that no other storage takes its address
            if tensor.dtype == torch.float32:
                self.cost[self._stage, "values"] += storage.nbytes() // torch.float32.itemsize
            else:
                self.cost[self._stage, "indices"] += storage.nbytes() // _BYTES_PER_INDEX
        return tensor


def _run(model: nn.Module, images: Tensor) -> None:
    try:
        model(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        size = images.shape[-1]
        raise UsageError(f"{type(model).__name__} can't take images of {size} px: {error}") from error
