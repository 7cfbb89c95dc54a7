"""What `dnctl eval` came to on a run's own validation images, kept in the run: by checkpoint and number of crops."""

from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import StorageError
from orchestrator.run import documents, files


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEvaluation:
    """Counts of one checkpoint."""

    checkpoint: str
    step: int
    crops: int
    """Of each image."""
    num_images: int
    correct1: int
    correct5: int

    @property
    def top1_error(self) -> float:
        """In percent."""
        return 100 - 100 * self.correct1 / self.num_images

    @property
    def top5_error(self) -> float:
        """In percent."""
        return 100 - 100 * self.correct5 / self.num_images


def keep_evaluation(folder: Path, evaluation: KeptEvaluation) -> None:
    """Keep it in place of an earlier one of the same. Raises StorageError."""
    files.make_directory(folder)
    files.write_json(folder / f"{evaluation.checkpoint}-{evaluation.crops}.json", asdict(evaluation))


def read_evaluations(folder: Path) -> tuple[list[KeptEvaluation], list[str]]:
    """All of them, the newest steps last, and what is wrong with those that can't be read."""
    found, faults = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            evaluation = documents.record(KeptEvaluation, files.read_json(path))
            if not max(evaluation.correct1, evaluation.correct5) <= evaluation.num_images > 0:
                raise ValueError("its counts can't be")
            found.append(evaluation)
        except (StorageError, FileNotFoundError, ValueError) as error:
            faults.append(f"{path.name}: {error}")
    return sorted(found, key=lambda evaluation: (evaluation.step, evaluation.crops)), faults
