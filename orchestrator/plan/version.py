"""The version of plan.json's format; apart from the plan, whose import checks it and takes half a second."""

from typing import Final

FORMAT_VERSION: Final = 2
