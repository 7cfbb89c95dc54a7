"""How the plan sizes reading: threads, what is prepared ahead, where images are decoded, copies of shards."""

import pytest

from orchestrator.errors import PlanError
from orchestrator.plan.cluster import ClusterShape
from tests.unit.test_plan_resolve import EIGHT_GPUS, TWO_CORES, plan

REMOTE = "data.root=s3://bucket/imagenet"


def test_a_worker_decodes_with_as_many_threads_as_it_has_cores():
    assert plan(cluster=EIGHT_GPUS).execution.loader_threads == 16  # four workers, one a group, share 64
    assert plan(cluster=TWO_CORES).execution.loader_threads == 1
    assert plan("data.num_threads=5").execution.loader_threads == 5


@pytest.mark.parametrize(
    ("overrides", "prefetch"), [((), 2), ((REMOTE,), 4), (("data.prefetch=7",), 7), ((REMOTE, "data.prefetch=1"), 1)]
)
def test_more_is_prepared_ahead_from_an_object_store(overrides, prefetch):
    assert plan(*overrides).execution.prefetch == prefetch


def test_images_are_decoded_on_gpus_where_there_are_some_unless_the_recipe_says_otherwise():
    assert plan(cluster=EIGHT_GPUS).numerics.decoder == "mixed"
    assert plan("data.decoder=cpu", cluster=EIGHT_GPUS).numerics.decoder == "cpu"
    assert plan("data.decoder=mixed", cluster=EIGHT_GPUS).numerics.decoder == "mixed"


@pytest.mark.parametrize(
    ("overrides", "cluster"),
    [
        ((), TWO_CORES),
        (("cluster.gpus_per_worker=0",), EIGHT_GPUS),
        (("data.loader=pytorch",), EIGHT_GPUS),
    ],
)
def test_decoding_on_a_gpu_that_is_not_there_is_refused(overrides: tuple[str, ...], cluster: ClusterShape):
    with pytest.raises(PlanError, match=r"data.decoder: decoding on a GPU needs DALI and workers with GPUs"):
        plan("data.decoder=mixed", *overrides, cluster=cluster)


def test_copies_of_shards_are_bounded_in_bytes():
    execution = plan("data.cache_gb=1.5", "data.cache_dir=/scratch").execution
    assert (execution.cache_bytes, execution.cache_dir) == (1_500_000_000, "/scratch")
    assert plan().execution.cache_bytes == 0


def test_reading_all_of_an_object_store_every_epoch_is_noted():
    assert any("data.cache_gb=SIZE" in note for note in plan(REMOTE).notes)
    assert not any("data.cache_gb=SIZE" in note for note in plan(REMOTE, "data.cache_gb=200").notes)
