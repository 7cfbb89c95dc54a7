"""The heat map of feature reuse, a block beside another: the paper's Figure 5."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from orchestrator.report.figures.style import Picture, drawing, picture, plain, shortened
from orchestrator.report.reuse import BlockReuse

_COLORMAP: Final = "cividis"
_ROW_IN: Final = 2.9


def reuse_picture(run: str, blocks: Sequence[BlockReuse], *, name: str, checkpoint: str) -> Picture:
    """Two blocks a row, each in shares of its own strongest connection."""
    num_rows = (len(blocks) + 1) // 2
    with drawing(height_in=0.5 + _ROW_IN * num_rows) as figure:
        grid = figure.subplots(num_rows, 2, squeeze=False)
        for axes, block in zip(grid.flat, blocks, strict=False):
            strongest = np.nanmax(block.strength)
            shares = block.strength / strongest if strongest > 0 else block.strength
            axes.imshow(shares, cmap=_COLORMAP, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
            _label(axes, block)
        for axes in grid.flat[len(blocks) :]:
            axes.set_visible(False)
        figure.colorbar(
            ScalarMappable(Normalize(0, 1), _COLORMAP),
            ax=grid,
            location="bottom",
            shrink=0.6,
            aspect=30,
            label="mean |weight|, share of the block's largest",
        )
        figure.suptitle(plain(f"Feature reuse: {shortened(run)}"), fontsize=10, fontweight="bold", x=0.01, ha="left")
        return picture(
            figure,
            name=name,
            title=f"Feature reuse in {run}",
            alternative=_said(blocks),
            caption=(
                f"Mean absolute weight by which each layer reads each earlier one's maps, in {run} ({checkpoint}). Row "
                "0 is the block's input; the framed last column is what reads the whole block: T, the transition, or "
                "C, the classifier. The mean is over input maps, so that sources of many maps and of few compare."
            ),
        )


def _label(axes: Axes, block: BlockReuse) -> None:
    depth = block.num_layers
    axes.grid(visible=False)
    axes.set(title=f"block {block.number}", xlabel="target layer", ylabel="source layer")
    every = max(1, -(-depth // 7))
    targets = list(range(0, depth, every))
    if depth - targets[-1] < every / 2 and len(targets) > 1:
        targets.pop()  # no room beside the last column's label
    letter = "C" if block.last_reader == "classifier" else "T"
    axes.set_xticks([*targets, depth], [*(str(target + 1) for target in targets), letter])
    axes.set_yticks(list(range(0, depth + 1, every)))
    axes.add_patch(Rectangle((depth - 0.5, -0.5), 1, depth + 1, fill=False, edgecolor="#D55E00", linewidth=1.5))


def _said(blocks: Sequence[BlockReuse]) -> str:
    parts = []
    for block in blocks:
        source, column = np.unravel_index(np.nanargmax(block.strength), block.strength.shape)
        target = block.last_reader if column == block.num_layers else f"layer {column + 1}"
        read = "the block's input" if source == 0 else f"layer {source}"
        parts.append(f"block {block.number}: {block.num_layers} layers, strongest from {read} to the {target}")
    return "Heat maps of mean absolute weights, source by target. " + "; ".join(parts)
