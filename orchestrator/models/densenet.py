"""DenseNet, pre-activation, as the paper's section 3 defines it; parameter names are timm's and torchvision's.

Has what timm expects of a model. Batch norms are `nn.BatchNorm2d`. Batches of no images pass, forward and
backward; they leave running statistics as they are, though `num_batches_tracked` counts them.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from orchestrator.models.block import BasicLayer, BlockKind, BottleneckLayer, DenseBlock, FusedDenseBlock
from orchestrator.models.block.activation import NormReLU2d, norm_relu
from orchestrator.models.block.groups import Grouped
from orchestrator.models.block.pooling import FusedMaxPool2d
from orchestrator.models.dropout import SampleDropout, number_masks
from orchestrator.models.initial import Init, init_convolutions
from orchestrator.models.preactivation import preactivated_conv
from orchestrator.plan.architecture import DenseNetArchitecture


def _imagenet_stem(in_chans: int, num_features: int, parts: "_Parts") -> OrderedDict[str, nn.Module]:
    return OrderedDict(
        conv0=nn.Conv2d(in_chans, num_features, kernel_size=7, stride=2, padding=3, bias=False),
        norm0=parts.norm(num_features),
        relu0=parts.relu(),
        pool0=parts.max_pool(),
    )


def _cifar_stem(in_chans: int, num_features: int, parts: "_Parts") -> OrderedDict[str, nn.Module]:
    return OrderedDict(conv0=nn.Conv2d(in_chans, num_features, kernel_size=3, padding=1, bias=False))


class _Parts(NamedTuple):
    """What a network is made of; both kinds have the same parameters under the same names."""

    dense_block: type[DenseBlock]
    transition: "type[Transition]"
    norm: type[nn.BatchNorm2d]
    relu: Callable[[], nn.Module]
    """What follows a norm outside of blocks: nothing where the norm does it itself."""
    max_pool: Callable[[], nn.Module]
    """3x3, by 2."""


_STEMS: Final = {"imagenet": _imagenet_stem, "cifar": _cifar_stem}
_WITH_PREVIOUS_GROUP: Final = (99999,)  # timm.models._manipulate.MATCH_PREV_GROUP
# Where timm taps the stem, by how much its maps are smaller than the image there, and by how much in the first block.
_STEM_TAPS: Final = {"imagenet": ("features.relu0", 2, 4), "cifar": ("features.conv0", 1, 1)}


class Transition(nn.Module):
    """Between two blocks: norm, ReLU, 1x1 convolution, dropout, 2x2 average pool."""

    def __init__(self, in_channels: int, out_channels: int, drop_rate: float, memory_efficient: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.drop = SampleDropout(drop_rate)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)
        self.memory_efficient = memory_efficient

    def forward(self, features: Tensor) -> Tensor:
        """features: [n, in_channels, h, w]; [n, out_channels, h // 2, w // 2]."""
        compressed = preactivated_conv(self.norm, self.conv, features, recompute=self.memory_efficient)
        result: Tensor = self.pool(self.drop(compressed))
        return result


class FusedTransition(Transition, Grouped):
    """`Transition` that pools before it convolves: the two commute, and a quarter of the pixels is left."""

    def forward(self, features: Tensor) -> Tensor:
        """features: [n, in_channels, h, w]; [n, out_channels, h // 2, w // 2]."""
        pool_first = not self.drop.drops
        compressed = self.conv(norm_relu(self.norm, features, grouped=self, pool=pool_first))
        result: Tensor = compressed if pool_first else self.pool(self.drop(compressed))
        return result


_PARTS: Final[dict[BlockKind, _Parts]] = {
    "reference": _Parts(
        DenseBlock,
        Transition,
        nn.BatchNorm2d,
        partial(nn.ReLU, inplace=True),
        partial(nn.MaxPool2d, kernel_size=3, stride=2, padding=1),
    ),
    "fused": _Parts(FusedDenseBlock, FusedTransition, NormReLU2d, nn.Identity, FusedMaxPool2d),
}


class DenseNet(nn.Module):
    """A DenseNet for images [n, in_chans, h, w].

    num_classes: outputs of the classifier; 0 leaves it away, as in timm.
    drop_rate: dropout after every convolution but the first, the transitions' included, as the authors' code has it
        (timm's and torchvision's drop only what a layer adds to its block).
    init: "authors" draws convolutions with standard deviation sqrt(2 / (k_w * k_h * channels_out)), "timm" with
        channels_in in its place, as timm and torchvision do.
    memory_efficient: recompute concatenations, norms and ReLUs in the backward pass; fused blocks never keep them.
    block: what computes blocks, transitions and norms: "reference", or "fused" for the same in less time and memory.
    """

    def __init__(
        self,
        architecture: DenseNetArchitecture,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        init: Init = "authors",
        memory_efficient: bool = False,
        block: BlockKind = "reference",
    ) -> None:
        super().__init__()
        parts = _PARTS[block]
        self.features = nn.Sequential(_STEMS[architecture.stem](in_chans, architecture.num_init_features, parts))
        for number, shape in enumerate(architecture.blocks(), start=1):
            dense_block = parts.dense_block(
                shape.in_channels,
                num_layers=shape.num_layers,
                growth_rate=architecture.growth_rate,
                bn_size=architecture.bn_size,
                drop_rate=drop_rate,
                memory_efficient=memory_efficient,
            )
            self.features.add_module(f"denseblock{number}", dense_block)
            if shape.transition_channels is not None:
                transition = parts.transition(
                    shape.out_channels, shape.transition_channels, drop_rate, memory_efficient
                )
                self.features.add_module(f"transition{number}", transition)
        self.features.add_module("norm5", parts.norm(architecture.num_features))
        self.features.add_module("relu5", parts.relu())

        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = architecture.num_features
        self.feature_info = _feature_info(architecture)
        self.reset_classifier(num_classes)
        number_masks(self)
        init_convolutions(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """images: [n, in_chans, h, w], normalised; logits [n, num_classes]."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The maps behind the last norm and ReLU: [n, num_features, h', w']."""
        result: Tensor = self.features(images)
        return result

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Global average pool and classifier; pre_logits leaves the classifier out: [n, num_features]."""
        pooled = features.mean(dim=(2, 3))
        result: Tensor = pooled if pre_logits else self.classifier(pooled)
        return result

    def get_classifier(self) -> nn.Module:
        """The fully connected layer, or an identity without classes."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new classifier in place, its weights drawn as torch's Linear draws them, its bias 0."""
        self.num_classes = num_classes
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            like = next(self.features.parameters())
            linear = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            self.classifier = linear
            nn.init.zeros_(linear.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch recomputation; timm's name for `memory_efficient`."""
        for module in self.features.modules():
            if isinstance(module, BasicLayer | BottleneckLayer | Transition):
                module.memory_efficient = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm groups parameters by depth."""
        layers = r"^features\.denseblock(\d+)\.denselayer(\d+)"
        transitions = r"^features\.transition(\d+)"
        stages = r"^features\.(?:denseblock|transition)(\d+)"
        return {
            "stem": r"^features\.(?:conv0|norm0)",
            "blocks": stages if coarse else [(layers, None), (transitions, _WITH_PREVIOUS_GROUP)],
        }


def _feature_info(architecture: DenseNetArchitecture) -> list[dict[str, Any]]:
    """Where timm may tap maps: behind the stem's convolution, each block but the last, and the last ReLU."""
    module, reduction, block_reduction = _STEM_TAPS[architecture.stem]
    taps = [{"num_chs": architecture.num_init_features, "reduction": reduction, "module": module}]
    for number, shape in enumerate(architecture.blocks(), start=1):
        is_last = shape.transition_channels is None
        module = "features.relu5" if is_last else f"features.denseblock{number}"
        taps.append({"num_chs": shape.out_channels, "reduction": block_reduction, "module": module})
        block_reduction *= 2
    return taps
