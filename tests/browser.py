"""A real browser without a window: pictures of pages, and what a page measures of itself."""

import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")


def missing() -> str | None:
    """Why no page can be shown here; None if one can."""
    return None if _program() else "needs Chromium: apt-get install chromium"


def _program() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def screenshot(page: Path, picture: Path, *, width: int, height: int) -> None:
    """The top of a page, in pixels."""
    _run(f"--window-size={width},{height}", f"--screenshot={picture}", page.as_uri(), home=picture.parent)


def shown(page: Path, *, width: int) -> str:
    """The page's HTML after its scripts have run."""
    return _run(f"--window-size={width},900", "--dump-dom", page.as_uri(), home=page.parent)


def _run(*arguments: str, home: Path) -> str:
    program = _program()
    assert program is not None
    command = [program, *_OPTIONS, f"--user-data-dir={home / 'browser'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
