"""An evaluation on a cluster: what is asked for, and asking. Light to import: the client needs no torch for it."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.engine.clusters import Cluster
from orchestrator.engine.short_job import answer_of
from orchestrator.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTask:
    """A checkpoint of a run, and the images that it is shown. Paths are the nodes'."""

    checkpoint: str
    root: str
    split: str
    crops: Literal[1, 10] | None
    """None: the run's own; likewise the loader."""
    loader: Literal["dali", "pytorch"] | None
    batch_size: int
    """Views of images on each worker at a time."""


def evaluate_on(cluster: Cluster, task: EvaluationTask) -> dict[str, Any]:
    """Evaluate on the GPUs of a cluster that are free, or on its cores. Raises ClusterError or UsageError.

    Returns counts and accuracies, the crops, the loader, the workers, and the seconds that they took.
    """
    if cluster.jobs_address is None:
        raise UsageError("Slurm gives nodes to jobs alone: run `dnctl eval` on a node, by srun, without --cluster")
    module = "orchestrator.engine.evaluation_job"
    return answer_of(cluster, module, [json.dumps(asdict(task))], what="the evaluation")
