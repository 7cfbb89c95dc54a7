"""From recipe and cluster to plan: the arithmetic, what `auto` becomes, and what is refused."""

from typing import Any

import pytest

from orchestrator.errors import PlanError
from orchestrator.plan.cluster import ClusterShape, NodeShape
from orchestrator.plan.plan import Plan
from orchestrator.plan.resolve import DatasetFacts, check_recipe, resolve
from orchestrator.recipe.load import load_recipe

TWO_CORES = ClusterShape(num_cpus=2)
EIGHT_GPUS = ClusterShape(num_cpus=64, num_gpus=8, gpu_type="NVIDIA GeForce RTX 3090")
IMAGENET = DatasetFacts(
    num_train_images=1_281_167, num_val_images=50_000, num_classes=1000, fingerprint="sha256:" + "0" * 64
)


def plan(
    *overrides: str,
    recipe: str = "densenet169",
    cluster: ClusterShape = TWO_CORES,
    dataset: DatasetFacts | None = IMAGENET,
    loader_available: Any = "dali",
) -> Plan:
    return resolve(
        load_recipe(recipe, overrides),
        cluster=cluster,
        dataset=dataset,
        versions={"torch": "2.15.0"},
        loader_available=loader_available,
    )


def test_the_papers_run_has_5005_steps_an_epoch_and_the_last_has_143_images():
    numerics = plan().numerics
    assert (numerics.steps_per_epoch, numerics.last_batch_size, numerics.num_steps) == (5005, 143, 450_450)


def test_the_papers_rate_falls_after_epochs_30_and_60():
    numerics = plan().numerics
    assert numerics.milestones_steps == (30 * 5005, 60 * 5005)
    rates = [numerics.schedule.at(step) for step in (0, 150_149, 150_150, 300_300, 450_449)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])


def test_milestones_given_as_fractions_move_with_the_epochs():
    assert plan("train.epochs=9").numerics.milestones_steps == (3 * 5005, 6 * 5005)


def test_milestones_given_as_epochs_stay():
    moved = plan("train.schedule.milestones=[2, 5]", "train.epochs=9").numerics
    assert moved.milestones_steps == (2 * 5005, 5 * 5005)


def test_a_batch_that_divides_the_data_leaves_no_short_step():
    facts = DatasetFacts(num_train_images=1024, num_val_images=10, num_classes=1000, fingerprint=None)
    numerics = plan(dataset=facts).numerics
    assert (numerics.steps_per_epoch, numerics.last_batch_size) == (4, 256)


def test_data_smaller_than_a_batch_is_one_short_step():
    facts = DatasetFacts(num_train_images=3, num_val_images=1, num_classes=2, fingerprint=None)
    numerics = plan(dataset=facts).numerics
    assert (numerics.steps_per_epoch, numerics.last_batch_size) == (1, 3)


def test_evaluation_and_checkpoints_come_at_their_epochs_and_at_the_end():
    execution = plan("train.epochs=5", "eval.every_epochs=2", "checkpoint.every_epochs=3").execution
    assert execution.evaluation_steps == (2 * 5005, 4 * 5005, 5 * 5005)
    assert execution.checkpoint_steps == (3 * 5005, 5 * 5005)


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (ClusterShape(num_cpus=1), (1, "cpu", 0, 1)),
        (ClusterShape(num_cpus=2), (2, "cpu", 0, 1)),
        (ClusterShape(num_cpus=64), (4, "cpu", 0, 16)),
        (ClusterShape(num_cpus=16, num_gpus=1), (1, "cuda", 1, 16)),
        (ClusterShape(num_cpus=64, num_gpus=8), (4, "cuda", 1, 16)),
    ],
)
def test_auto_takes_a_worker_a_device_and_at_most_one_a_group(cluster: ClusterShape, expected: tuple[Any, ...]):
    placement = plan(cluster=cluster).placement
    found = (placement.world_size, placement.device, placement.gpus_per_worker, placement.cpus_per_worker)
    assert found == expected


def test_more_workers_than_cores_share_them_and_the_plan_says_so():
    planned = plan("cluster.workers=3")
    assert (planned.placement.cpus_per_worker, planned.placement.compute_threads) == (0, 1)
    assert any("3 workers share 2 CPU cores" in note for note in planned.notes)


def test_four_groups_on_three_workers_are_128_64_and_64_images():
    planned = plan("cluster.workers=3")
    assert planned.placement.images_per_rank == (128, 64, 64)
    assert any("2/1/1" in note and "2 or 4 workers" in note for note in planned.notes)


def test_a_group_split_over_workers_is_said():
    planned = plan("cluster.workers=6", "cluster.split_groups=true", cluster=EIGHT_GPUS)
    assert planned.placement.images_per_rank == (32, 32, 32, 32, 64, 64)
    assert any("synchronised" in note for note in planned.notes)


@pytest.mark.parametrize(
    ("loader", "available", "cluster", "expected"),
    [
        ("auto", "dali", EIGHT_GPUS, ("dali", "mixed")),
        ("auto", "dali", TWO_CORES, ("dali", "cpu")),
        ("auto", "pytorch", EIGHT_GPUS, ("pytorch", "cpu")),
        ("pytorch", "dali", EIGHT_GPUS, ("pytorch", "cpu")),
    ],
)
def test_the_loader_and_what_decodes_are_decided_once(
    loader: str, available: str, cluster: ClusterShape, expected: tuple[str, str]
):
    numerics = plan(f"data.loader={loader}", cluster=cluster, loader_available=available).numerics
    assert (numerics.loader, numerics.decoder) == expected


def test_without_data_the_size_that_the_recipe_expects_is_taken_and_said():
    planned = plan(dataset=None)
    assert planned.numerics.num_train_images == 1_281_167
    assert planned.numerics.data_fingerprint is None
    assert any("The data has not been read" in note for note in planned.notes)


def test_data_of_another_size_than_expected_is_used_and_the_difference_said():
    facts = DatasetFacts(num_train_images=1000, num_val_images=50_000, num_classes=1000, fingerprint="sha256:1")
    planned = plan(dataset=facts)
    assert planned.numerics.num_train_images == 1000
    assert "The data has 1,000 training images; the recipe expects 1,281,167." in planned.notes


def test_classes_are_the_datas_unless_the_recipe_says_more():
    facts = DatasetFacts(num_train_images=100, num_val_images=10, num_classes=7, fingerprint=None)
    assert plan(dataset=facts).numerics.num_classes == 7
    assert plan("model.num_classes=1000", dataset=facts).numerics.num_classes == 1000


def test_a_milestone_lost_in_a_short_run_is_said():
    facts = DatasetFacts(num_train_images=100, num_val_images=10, num_classes=7, fingerprint=None)
    assert any("so short that milestones" in note for note in plan("train.epochs=1", dataset=facts).notes)


def test_everything_that_cannot_work_is_reported_together():
    with pytest.raises(PlanError) as caught:
        plan(
            "model.name=densenet170",
            "cluster.gpus_per_worker=1",
            "cluster.cpus_per_worker=5",
            "data.loader=dali",
            loader_available="pytorch",
        )
    message = str(caught.value)
    assert message.startswith("There are 4 reasons why this can't run:")
    assert "--set model.name=densenet170: model.name: " in message
    assert "densenet169" in message
    assert "cluster.gpus_per_worker: found 1, but the cluster has no GPU (2 CPU cores, no GPU)" in message
    assert (
        "cluster.cpus_per_worker: found 5 CPU cores a worker, 5 in all, but the cluster never has more than 2"
        in message
    )
    assert "data.loader: DALI is not installed" in message


LARGE_HEAD_SMALL_GPU_NODES = ClusterShape(
    num_cpus=64 + 4 * 8,
    num_gpus=4,
    nodes=5,
    each=(NodeShape(num_cpus=64), *(NodeShape(num_cpus=8, num_gpus=1) for _ in range(4))),
)


def test_workers_get_no_more_cores_than_their_nodes_have():
    assert plan(cluster=LARGE_HEAD_SMALL_GPU_NODES).placement.cpus_per_worker == 8  # not 96 / 4
    two_cpu_nodes = ClusterShape(num_cpus=10, nodes=2, each=(NodeShape(num_cpus=7), NodeShape(num_cpus=3)))
    assert plan("cluster.workers=2", cluster=two_cpu_nodes).placement.cpus_per_worker == 3
    assert plan("cluster.workers=3", cluster=two_cpu_nodes).placement.cpus_per_worker == 3
    assert plan("cluster.workers=4", cluster=two_cpu_nodes).placement.cpus_per_worker == 2


def test_auto_takes_as_many_workers_as_nodes_have_room_for():
    two_small_nodes = ClusterShape(num_cpus=6, nodes=2, each=(NodeShape(num_cpus=3), NodeShape(num_cpus=3)))
    elastic = "cluster.workers={min: 1, max: 4}"
    assert plan(elastic, "cluster.cpus_per_worker=2", cluster=two_small_nodes).placement.world_size == 2
    assert plan("cluster.workers=auto", "cluster.cpus_per_worker=2", cluster=two_small_nodes).placement.world_size == 2


def test_workers_for_whom_no_node_has_room_are_refused_at_once():
    with pytest.raises(PlanError) as caught:
        plan("cluster.workers=4", "cluster.cpus_per_worker=12", cluster=LARGE_HEAD_SMALL_GPU_NODES)
    assert str(caught.value) == (
        "--set cluster.cpus_per_worker=12: cluster.cpus_per_worker: found 4 workers of 12 CPU cores and a GPU each, "
        "but on the nodes of the cluster (96 CPU cores, 4 x GPU, 5 nodes) there never is room for more than 0; "
        "allowed: at most 8, or auto"
    )


def test_more_workers_than_the_cluster_ever_has_gpus_are_refused():
    with pytest.raises(PlanError, match=r"cluster\.workers: found 9 workers with a GPU each, .* more than 8"):
        plan("cluster.workers=9", cluster=EIGHT_GPUS)


def test_more_classes_in_the_data_than_outputs_are_refused():
    facts = DatasetFacts(num_train_images=100, num_val_images=10, num_classes=12, fingerprint=None)
    with pytest.raises(PlanError, match=r"model\.num_classes: found 10 for data of 12 classes"):
        plan("model.num_classes=10", "data.expected=null", dataset=facts)


def test_data_that_is_neither_read_nor_expected_is_refused():
    with pytest.raises(PlanError, match=r"data\.root: found null, which can't be read here"):
        plan("data.expected=null", dataset=None)


def test_timms_models_take_no_options_of_ours():
    with pytest.raises(PlanError, match=r"model\.drop_rate: timm's own models"):
        check_recipe(load_recipe("densenet169", ["model.name=timm:resnet50", "model.drop_rate=0.1"]))


def test_recipes_made_in_python_are_checked_too():
    recipe = load_recipe("densenet169")
    train = recipe.train.model_copy(update={"batch_norm_groups": 300})
    with pytest.raises(PlanError, match="found 300 groups for a batch of 256 images"):
        check_recipe(recipe.model_copy(update={"train": train}))


@pytest.mark.parametrize("recipe", ["densenet121", "densenet169", "densenet201", "densenet264", "demo"])
@pytest.mark.parametrize("cluster", [TWO_CORES, EIGHT_GPUS], ids=["cpus", "gpus"])
def test_every_recipe_plans_without_its_data(recipe: str, cluster: ClusterShape):
    assert plan(recipe=recipe, cluster=cluster, dataset=None).numerics.num_steps > 0


def test_workers_beyond_the_groups_are_idle_unless_groups_are_split():
    planned = plan("cluster.workers=6", cluster=EIGHT_GPUS)
    assert planned.placement.images_per_rank == (64, 64, 64, 64, 0, 0)
    assert any("2 of the 6 workers have nothing to train on" in note for note in planned.notes)
