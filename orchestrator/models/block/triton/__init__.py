"""The fused block's kernels in Triton. Imported only where they will run: on a GPU, or in Triton's interpreter."""

from orchestrator.models.block.triton.kernels import TritonKernels
from orchestrator.models.block.triton.tiles import Tile, Tiles

__all__ = ["Tile", "Tiles", "TritonKernels"]
