"""Secrets taken out of whatever is kept or shown: reasons, events, logs, messages.

Nothing here is supposed to hold one in the first place: tokens travel in files and environments, and a URL with a
password is refused. But errors of other libraries quote what they were given.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

MASK = "***"
MIN_LENGTH = 8
"""Shorter values are no secrets worth the name, and would blacken words by chance."""

_TELLING = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)")
_BEARER = re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}")
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 — the name of a variable


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without passwords in URLs, bearer tokens, and the values of variables that are named like secrets."""
    text = _BEARER.sub(MASK, _IN_URL.sub(MASK, text))
    for secret in _secrets(environment):
        text = text.replace(secret, MASK)
    return text


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if name == _TOKEN_PATH:
            value = _token(value)
        if len(value) >= MIN_LENGTH and _TELLING.search(name) and not value.startswith(("/", "~")):
            yield value


def _token(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def has_password(url: str) -> bool:
    """Whether a URL carries one."""
    return _IN_URL.search(url) is not None


class RedactingFormatter(logging.Formatter):
    """Of the logs of drivers and workers, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without secrets."""
        return redacted(super().format(record))
