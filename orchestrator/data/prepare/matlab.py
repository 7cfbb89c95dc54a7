"""Reads .mat files, with scipy, which is an extra."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.errors import DataError, UsageError


def load_mat(content: Path | bytes, where: Path) -> dict[str, npt.NDArray[Any]]:
    """The variables of a .mat file. where: what is named if it can't be read.

    Raises DataError if it is damaged, UsageError without scipy.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError("Reading .mat files takes scipy: pip install 'dnctl[prepare]'") from error
    try:
        variables = loadmat(io.BytesIO(content) if isinstance(content, bytes) else content)
    except Exception as error:  # scipy's reader raises nearly anything on damaged files
        raise DataError(f"{where} has a .mat file that can't be read: {error}. Download it again.") from error
    return {name: value for name, value in variables.items() if isinstance(value, np.ndarray)}
