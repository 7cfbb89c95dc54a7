"""A storage that fails on command: a filesystem of its own in a file, mounted where runs lie."""

import contextlib
import shutil
import subprocess
from pathlib import Path

SIZE_BYTES = 512 << 20
LEFT_BYTES = 4 << 20
"""Not given away at once: the filesystem needs some to note who has the rest."""
BLOCK_BYTES = 4096


class Disk:
    """Mounted on `place`; runs lie in `place/runs`. To be mounted before hosts are made, which inherit the mount."""

    def __init__(self, folder: Path) -> None:
        self._image, self._place = folder / "disk.img", folder / "disk"
        self.storage = self._place / "runs"

    def mount(self) -> None:
        """Make the filesystem."""
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        self._place.mkdir()
        _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        _run("mount", "-o", "loop,noatime", str(self._image), str(self._place))
        self.storage.mkdir()

    def freeze(self) -> None:
        """Whoever writes hangs, beyond the reach of any signal, as on a network filesystem whose server is away."""
        _run("fsfreeze", "--freeze", str(self._place))

    def thaw(self) -> None:
        """Writes go on."""
        _run("fsfreeze", "--unfreeze", str(self._place))

    def take_away(self) -> None:
        """Nothing is there, as on a mount point whose filesystem is gone."""
        self.storage.rename(self._place / "away")

    def bring_back(self) -> None:
        """Everything is there again, and nothing else."""
        if self.storage.exists():
            shutil.rmtree(self.storage)
        (self._place / "away").rename(self.storage)

    def fill(self) -> None:
        """Not a block is left."""
        filler = self._place / "filler"
        _run("fallocate", "--length", str(shutil.disk_usage(self._place).free - LEFT_BYTES), str(filler))
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(BLOCK_BYTES))

    def empty(self) -> None:
        """There is room again."""
        (self._place / "filler").unlink()

    def make_usable(self) -> None:
        """Whatever was done to it. A process that writes to a frozen disk can't even be ended."""
        subprocess.run(["fsfreeze", "--unfreeze", str(self._place)], capture_output=True, check=False)
        (self._place / "filler").unlink(missing_ok=True)
        if (self._place / "away").exists():
            self.bring_back()

    def unmount(self) -> None:
        """Remove it; nobody uses it any more."""
        _run("umount", "--lazy", str(self._place))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
