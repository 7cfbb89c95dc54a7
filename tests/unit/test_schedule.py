"""The learning rate at every step."""

import pytest

from orchestrator.plan.schedule import LearningRateSchedule

IMAGENET = LearningRateSchedule(base_lr=0.1, milestones_steps=(150_150, 300_300), gamma=0.1)


@pytest.mark.parametrize(
    ("step", "lr"), [(0, 0.1), (150_149, 0.1), (150_150, 0.01), (300_299, 0.01), (300_300, 0.001), (450_449, 0.001)]
)
def test_the_rate_falls_at_the_first_step_after_a_milestone(step: int, lr: float):
    assert IMAGENET.at(step) == pytest.approx(lr, rel=1e-12)


def test_warm_up_is_linear_and_ends_at_the_full_rate():
    schedule = LearningRateSchedule(base_lr=0.4, milestones_steps=(), gamma=0.1, warmup_steps=4)
    assert [schedule.at(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_a_milestone_within_the_warm_up_lowers_the_rate_that_is_warmed_up_to():
    schedule = LearningRateSchedule(base_lr=0.4, milestones_steps=(2,), gamma=0.5, warmup_steps=4)
    assert [schedule.at(step) for step in range(5)] == pytest.approx([0.1, 0.2, 0.15, 0.2, 0.2])


def test_segments_cover_the_run_and_agree_with_the_schedule():
    schedule = LearningRateSchedule(base_lr=0.1, milestones_steps=(30, 60), gamma=0.1, warmup_steps=5)
    segments = schedule.segments(90)
    assert [(s.first_step, s.last_step) for s in segments] == [(0, 4), (5, 29), (30, 59), (60, 89)]
    for segment in segments:
        assert segment.first_lr == schedule.at(segment.first_step)
        assert segment.last_lr == schedule.at(segment.last_step)
