"""Estimates of time and memory: what they come to, what they rest on, and when there are none."""

import pytest

from orchestrator.plan.cluster import ClusterShape
from orchestrator.plan.estimate import with_measured_rate
from orchestrator.plan.networks import NETWORKS
from orchestrator.plan.plan import Plan
from orchestrator.plan.rates import MeasuredRate, published_rates
from orchestrator.plan.resolve import resolve
from orchestrator.recipe.load import load_recipe

GPUS = ClusterShape(num_cpus=64, num_gpus=8, gpu_type="NVIDIA GeForce RTX 3090", gpu_memory_bytes=24 * 2**30)
AMP = ("train.precision=bf16", "train.channels_last=true")


def plan(*overrides: str, cluster: ClusterShape = GPUS) -> Plan:
    recipe = load_recipe("densenet169", overrides)
    return resolve(recipe, cluster=cluster, dataset=None, versions={}, loader_available="dali")


def test_a_published_rate_gives_hours_and_its_source():
    time = plan(*AMP).estimate.time
    assert time is not None
    assert time.images_per_s == pytest.approx(4 * 753)
    assert time.step_s == pytest.approx(64 / 753)
    training_h = 90 * 1_281_167 / (4 * 753) / 3600
    assert training_h < time.total_h < 1.02 * training_h
    assert time.gpu_hours == pytest.approx(4 * time.total_h)
    assert "timm" in time.basis


def test_a_step_lasts_as_long_as_its_busiest_worker():
    two, three = (plan(*AMP, f"cluster.workers={workers}").estimate.time for workers in (2, 3))
    assert two is not None
    assert three is not None
    assert three.step_s == two.step_s


def test_a_rate_on_cpu_cores_is_scaled_to_those_of_a_worker_and_says_so():
    time = plan("cluster.workers=4", cluster=ClusterShape(num_cpus=16)).estimate.time
    assert time is not None
    assert time.images_per_s == pytest.approx(4 * 12.1 * 2)
    assert "scaled from 2 to 4 CPU cores a worker" in time.basis


def test_without_a_rate_nothing_is_made_up_and_the_probe_is_pointed_out():
    estimate = plan().estimate  # fp32 on an RTX 3090
    assert estimate.time is None
    (unknown,) = estimate.unknown
    assert "densenet169 on NVIDIA GeForce RTX 3090 (fp32)" in unknown
    assert "RTX 3090 (fp16/bf16, channels_last)" in unknown
    assert "--probe" in unknown


def test_a_measured_rate_takes_the_place_of_what_is_unknown():
    rate = MeasuredRate(
        device="NVIDIA GeForce RTX 3090",
        num_cores=None,
        model="densenet169",
        image_size=224,
        precisions=("fp32",),
        channels_last=False,
        images_per_s=100.0,
        source="measured here",
    )
    estimate = with_measured_rate(plan(), rate, GPUS).estimate
    assert estimate.unknown == ()
    assert estimate.time is not None
    assert estimate.time.step_s == pytest.approx(0.64)
    assert "measured here" in estimate.time.basis


def test_memory_is_that_of_the_largest_micro_batch():
    unrecorded = "train.cuda_graphs=off"
    by_groups, by_images = (plan(unrecorded, f"train.batch_norm_groups={n}").estimate.memory for n in (4, 256))
    assert by_groups is not None
    assert by_images is not None
    assert by_groups.activations_bytes == 64 * by_images.activations_bytes
    assert by_groups.weights_bytes == by_images.weights_bytes == 14_149_480 * 12


def test_splitting_a_group_and_recomputation_save_memory():
    whole = plan("train.cuda_graphs=off").estimate.memory
    split = plan("cluster.workers=8", "cluster.split_groups=true").estimate.memory
    recomputed = plan("train.cuda_graphs=off", "model.memory_efficient=true").estimate.memory
    assert whole is not None
    assert split is not None
    assert recomputed is not None
    assert split.activations_bytes * 2 == whole.activations_bytes
    assert recomputed.activations_bytes < whole.activations_bytes


def test_recorded_steps_leave_room_for_the_short_last_batch():
    recorded, plain = plan().estimate.memory, plan("train.cuda_graphs=off").estimate.memory
    assert recorded is not None
    assert plain is not None
    assert recorded.activations_bytes * 64 == plain.activations_bytes * (64 + 36), "64 and, of 143, 36 images"


def test_memory_that_a_gpu_does_not_have_is_said_with_what_to_do():
    small = ClusterShape(num_cpus=8, num_gpus=4, gpu_memory_bytes=2 * 2**30)
    assert any("set model.memory_efficient=true" in note for note in plan(cluster=small).notes)


def test_models_that_cannot_be_counted_have_no_memory_estimate():
    estimate = plan("model.name=timm:resnet50").estimate
    assert estimate.memory is None
    assert any("Memory is unknown" in sentence for sentence in estimate.unknown)


def test_every_published_rate_has_a_source_and_a_model_of_ours():
    for rate in published_rates():
        assert rate.source
        assert rate.model in NETWORKS
        assert (rate.num_cores is not None) == (rate.device == "cpu")
