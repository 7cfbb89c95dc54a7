"""The loaders of a run on one rank: for the steps to the end of the run, and for an evaluation."""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from orchestrator.data.batch import SampleRequest
from orchestrator.data.loader import Loader, open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.data.staging import ShardCache, default_cache_folder
from orchestrator.data.transforms import Transform
from orchestrator.plan.plan import Execution, Plan
from orchestrator.train.requests import evaluation_requests, training_requests
from orchestrator.train.split import Images
from orchestrator.train.transforms import eval_transform, train_transform
from orchestrator.train.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaders:
    """Opens loaders as a plan says. Each is a context; what it holds is given back at its end."""

    plan: Plan
    world: World

    def training(self, images: Images, *, first_step: int, passed_over: Set[int]) -> Loader:
        """A batch for each of this rank's shares of batch-norm groups, step after step, without those passed over."""
        numerics = self.plan.numerics
        requests = training_requests(
            numerics,
            self.plan.placement.group_shares[self.world.rank],
            rows=images.rows,
            first_step=first_step,
            passed_over=passed_over,
        )
        return self._open(
            images.manifest,
            train_transform(numerics.train_transform),
            requests,
            max_batch_size=math.ceil(numerics.global_batch_size / numerics.batch_norm_groups),
        )

    def evaluation(self, images: Images) -> Loader:
        """This rank's part of the images, each once."""
        transform = self.plan.numerics.eval_transform
        batch_size = max(1, self.plan.execution.eval_batch_size // transform.crops)
        return self._open(
            images.manifest,
            eval_transform(transform),
            evaluation_requests(images.rows, self.world, batch_size=batch_size),
            max_batch_size=batch_size,
        )

    def _open(
        self, manifest: Manifest, transform: Transform, requests: Iterator[SampleRequest], *, max_batch_size: int
    ) -> Loader:
        numerics, execution = self.plan.numerics, self.plan.execution
        return open_loader(
            numerics.loader,
            manifest,
            transform,
            seed=numerics.seed,
            requests=requests,
            max_batch_size=max_batch_size,
            device=self.world.device_type,
            device_index=self.world.device.index or 0,
            num_threads=execution.loader_threads,
            prefetch=execution.prefetch,
            cache=_shard_cache(execution),
            decoder=numerics.decoder,
        )


def _shard_cache(execution: Execution) -> ShardCache | None:
    if execution.cache_bytes == 0:
        return None
    folder = Path(execution.cache_dir) if execution.cache_dir is not None else default_cache_folder()
    return ShardCache(folder=folder, max_bytes=execution.cache_bytes)
