"""The figures of the paper that a run can be held against: error rates of its tables, and what they were measured on.

Source: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017 (arXiv
1608.06993v5), Tables 2 and 3; wide DenseNet-BCs from the README of the authors' code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Setting = Literal["c10", "c10plus", "c100", "c100plus", "svhn"]
"""C10 and C100 are CIFAR-10 and -100, "plus" is with standard augmentation."""

SETTING_NAMES: Final[Mapping[Setting, str]] = {
    "c10": "C10",
    "c10plus": "C10+",
    "c100": "C100",
    "c100plus": "C100+",
    "svhn": "SVHN",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallImagesRow:
    """A row of Table 2: test errors in percent; None where the paper has none."""

    method: str
    depth: str
    parameters: str
    """As printed."""
    errors: Mapping[Setting, float | None]
    network: str | None = None
    """What it is called here; None for what can't be trained here."""


def _errors(*values: float | None) -> dict[Setting, float | None]:
    return dict(zip(SETTING_NAMES, values, strict=True))


DENSENET_ROWS: Final = (
    SmallImagesRow(
        method="DenseNet (k=12)",
        depth="40",
        parameters="1.0M",
        errors=_errors(7.00, 5.24, 27.55, 24.42, 1.79),
        network="densenet40_12",
    ),
    SmallImagesRow(
        method="DenseNet (k=12)",
        depth="100",
        parameters="7.0M",
        errors=_errors(5.77, 4.10, 23.79, 20.20, 1.67),
        network="densenet100_12",
    ),
    SmallImagesRow(
        method="DenseNet (k=24)",
        depth="100",
        parameters="27.2M",
        errors=_errors(5.83, 3.74, 23.42, 19.25, 1.59),
        network="densenet100_24",
    ),
    SmallImagesRow(
        method="DenseNet-BC (k=12)",
        depth="100",
        parameters="0.8M",
        errors=_errors(5.92, 4.51, 24.15, 22.27, 1.76),
        network="densenetbc100_12",
    ),
    SmallImagesRow(
        method="DenseNet-BC (k=24)",
        depth="250",
        parameters="15.3M",
        errors=_errors(5.19, 3.62, 19.64, 17.60, 1.74),
        network="densenetbc250_24",
    ),
    SmallImagesRow(
        method="DenseNet-BC (k=40)",
        depth="190",
        parameters="25.6M",
        errors=_errors(None, 3.46, None, 17.18, None),
        network="densenetbc190_40",
    ),
)

WIDE_ROWS: Final = (
    SmallImagesRow(
        method="Wide-DenseNet-BC (k=36)",
        depth="40",
        parameters="1.5M",
        errors=_errors(None, 4.58, None, 22.30, None),
        network="densenetbc40_36",
    ),
    SmallImagesRow(
        method="Wide-DenseNet-BC (k=48)",
        depth="40",
        parameters="2.7M",
        errors=_errors(None, 3.99, None, 20.29, None),
        network="densenetbc40_48",
    ),
    SmallImagesRow(
        method="Wide-DenseNet-BC (k=60)",
        depth="40",
        parameters="4.3M",
        errors=_errors(None, 4.01, None, 19.99, None),
        network="densenetbc40_60",
    ),
)
"""Not of the paper, but of the README of the authors' code."""

OTHER_ROWS: Final = (
    SmallImagesRow(
        method="Network in Network", depth="–", parameters="–", errors=_errors(10.41, 8.81, 35.68, None, 2.35)
    ),
    SmallImagesRow(method="All-CNN", depth="–", parameters="–", errors=_errors(9.08, 7.25, None, 33.71, None)),
    SmallImagesRow(
        method="Deeply Supervised Net", depth="–", parameters="–", errors=_errors(9.69, 7.97, None, 34.57, 1.92)
    ),
    SmallImagesRow(method="Highway Network", depth="–", parameters="–", errors=_errors(None, 7.72, None, 32.39, None)),
    SmallImagesRow(
        method="FractalNet", depth="21", parameters="38.6M", errors=_errors(10.18, 5.22, 35.34, 23.30, 2.01)
    ),
    SmallImagesRow(
        method="FractalNet with dropout and drop-path",
        depth="21",
        parameters="38.6M",
        errors=_errors(7.33, 4.60, 28.20, 23.73, 1.87),
    ),
    SmallImagesRow(method="ResNet", depth="110", parameters="1.7M", errors=_errors(None, 6.61, None, None, None)),
    SmallImagesRow(
        method="ResNet (reported by Huang et al. 2016)",
        depth="110",
        parameters="1.7M",
        errors=_errors(13.63, 6.41, 44.74, 27.22, 2.01),
        network="cifarresnet110",
    ),
    SmallImagesRow(
        method="ResNet with stochastic depth",
        depth="110",
        parameters="1.7M",
        errors=_errors(11.66, 5.23, 37.80, 24.58, 1.75),
        network="cifarresnet110",
    ),
    SmallImagesRow(
        method="ResNet with stochastic depth",
        depth="1202",
        parameters="10.2M",
        errors=_errors(None, 4.91, None, None, None),
    ),
    SmallImagesRow(
        method="Wide ResNet",
        depth="16",
        parameters="11.0M",
        errors=_errors(None, 4.81, None, 22.07, None),
        network="wideresnet16_8",
    ),
    SmallImagesRow(
        method="Wide ResNet",
        depth="28",
        parameters="36.5M",
        errors=_errors(None, 4.17, None, 20.50, None),
        network="wideresnet28_10",
    ),
    SmallImagesRow(
        method="Wide ResNet with dropout",
        depth="16",
        parameters="2.7M",
        errors=_errors(None, None, None, None, 1.64),
        network="wideresnet16_4",
    ),
    SmallImagesRow(
        method="ResNet (pre-activation)",
        depth="164",
        parameters="1.7M",
        errors=_errors(11.26, 5.46, 35.58, 24.33, None),
        network="preresnet164",
    ),
    SmallImagesRow(
        method="ResNet (pre-activation)",
        depth="1001",
        parameters="10.2M",
        errors=_errors(10.56, 4.62, 33.47, 22.71, None),
        network="preresnet1001",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagenetRow:
    """A row of Table 3: validation errors in percent, by one crop and by ten."""

    network: str
    top1: tuple[float, float]
    top5: tuple[float, float]


IMAGENET_ROWS: Final = (
    ImagenetRow(network="densenet121", top1=(25.02, 23.61), top5=(7.71, 6.66)),
    ImagenetRow(network="densenet169", top1=(23.80, 22.08), top5=(6.85, 5.92)),
    ImagenetRow(network="densenet201", top1=(22.58, 21.46), top5=(6.34, 5.54)),
    ImagenetRow(network="densenet264", top1=(22.15, 20.80), top5=(6.12, 5.29)),
)
