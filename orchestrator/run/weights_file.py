"""The bytes of given weights, before anybody looks into them: a file, or the network of a checkpoint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import NotFoundError
from orchestrator.run import files
from orchestrator.run.checkpoints import checkpoint_at, is_checkpoint_path, read_whole
from orchestrator.run.contents import MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """Weights as they lie on storage."""

    path: Path
    content: bytes

    @property
    def is_safetensors(self) -> bool:
        """Whether the content is of that format, by its name; otherwise it is what torch saves."""
        return self.path.suffix == ".safetensors"

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()


def read_weights_file(path: Path) -> WeightsFile:
    """Read a state_dict's file, or a checkpoint's directory, verified. Raises NotFoundError or StorageError."""
    if is_checkpoint_path(path):
        return WeightsFile(path=path / MODEL, content=read_whole(checkpoint_at(path))[MODEL])
    if not path.exists():
        raise NotFoundError(f"there is no file {path}")
    with files.translated("read the weights", path):
        return WeightsFile(path=path, content=path.read_bytes())
