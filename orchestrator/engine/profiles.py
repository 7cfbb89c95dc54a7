"""Finding and reading cluster profiles: by path, or by name in ./cluster and among those that ship with dnctl."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from orchestrator.engine.profile import KINDS, Profile
from orchestrator.errors import NotFoundError, ProfileError
from orchestrator.recipe.document import Fault, Node, read_yaml
from orchestrator.recipe.faults import explain_all, list_faults, show
from orchestrator.recipe.library import shipped_dir, shown_from_here
from orchestrator.recipe.reference import keys_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFile:
    """A profile and where it was read."""

    path: Path
    """Absolute."""
    profile: Profile

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.path.stem

    def beside(self, file: str) -> Path:
        """A file that the profile names."""
        return self.path.parent / file


def profile_files() -> tuple[Path, ...]:
    """The profiles that can be called by name: those of ./cluster, and of those that ship with dnctl the others."""
    by_name = {
        path.stem: path for folder in (shipped_dir("cluster"), Path("cluster")) for path in folder.glob("*.yaml")
    }
    return tuple(by_name[name] for name in sorted(by_name))


def find_profile(name_or_path: str) -> Path:
    """The file of a profile. Raises NotFoundError if there is none of that name."""
    if os.path.isfile(name_or_path):  # noqa: PTH113 — unlike pathlib's, it says no to names that can't be, too
        return Path(name_or_path)
    by_name = {path.stem: path for path in profile_files()}
    if name_or_path in by_name:
        return by_name[name_or_path]
    near = difflib.get_close_matches(name_or_path, by_name, n=1)
    raise NotFoundError(
        f"there is no cluster {name_or_path!r}: "
        + (f"did you mean {near[0]!r}? " if near else "")
        + f"The profiles are {', '.join(by_name)}; a profile's file and the http:// address of a Ray dashboard (Ray "
        "prints it when the head starts; port 8265 unless set otherwise) will do, too"
    )


def read_profile(path: Path, *, environment: Mapping[str, str] = os.environ) -> ProfileFile:
    """The profile in a file, and that the files that it names are there.

    environment: what ${VAR} in paths is replaced from.
    Raises ProfileError that lists every fault with file, line, key, what was found and what is allowed.
    """
    source = str(shown_from_here(path))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"{source} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ProfileError(f"{source} can't be read: byte {error.start} is not UTF-8") from None
    tree, faults = read_yaml(text, source)
    if tree is None:
        raise ProfileError(list_faults(faults, "profile"))
    profile, invalid = _validate(tree, environment)
    known = {fault.key for fault in faults}
    faults += [fault for fault in invalid if fault.key not in known]
    if profile is not None:
        faults += _missing_files(tree, profile, path.parent)
    if profile is None or faults:
        raise ProfileError(list_faults(faults, "profile"))
    return ProfileFile(path=path.absolute(), profile=profile)


def _validate(tree: Node, environment: Mapping[str, str]) -> tuple[Profile | None, list[Fault]]:
    values = tree.plain()
    if not isinstance(values, dict):
        found = "found nothing" if values is None else f"found {show(values)}"
        return None, [Fault(tree.origin, "", f"{found}; allowed: keys and values, such as `kind: local`")]
    origins = dict(tree.origins())
    kind = values.get("kind")
    schema = KINDS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        found = (
            f"found {show(kind)}; {f'did you mean {near[0]!r}? ' if near else ''}" if "kind" in values else "not set; "
        )
        fault = Fault(origins.get("kind", tree.origin), "kind", f"{found}allowed: {', '.join(KINDS)}")
        return None, [fault]  # which other keys there may be hangs on it
    try:
        return schema.model_validate(values, context=environment), []
    except ValidationError as error:
        return None, list(explain_all(error.errors(), values, keys_of(schema), origins, tree.origin))


def _missing_files(tree: Node, profile: Profile, folder: Path) -> list[Fault]:
    """A fault for each file that the profile names and that isn't there."""
    origins = dict(tree.origins())
    return [
        Fault(origins[key], key, f"found {file!r}, but there is no file {folder / file}")
        for key in ("config", "script", "manifests")
        for file in _names(getattr(profile, key, ()))
        if not (folder / file).is_file()
    ]


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
