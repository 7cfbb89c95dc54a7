"""The files of a checkpoint without a network: small tensors and the numbers beside them."""

import json
from typing import Any

import numpy as np
from safetensors.numpy import save

from orchestrator.run.contents import MODEL, OPTIMIZER, STATE


def contents_of(step: int, *, num_values: int = 1000, **state: Any) -> dict[str, bytes]:
    """What a training would save after `step`."""
    return {
        MODEL: save({"weight": np.full(num_values, 0.5, dtype=np.float32), "bias": np.zeros(3, dtype=np.float32)}),
        OPTIMIZER: save({"weight": np.full(num_values, 0.1, dtype=np.float32)}),
        STATE: json.dumps({"format_version": 1, "step": step, **state}).encode(),
    }
