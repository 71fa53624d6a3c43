"""The schedules against states computed by hand."""

import pytest

from repro.paper.recipes import Plateau, Steps
from repro.training.schedule import Chance, ScheduleState, advance, divide

CHANCE = Chance(error=90.0, images=1000)


def drops_after_each_epoch(schedule, errors, epochs=100):
    """Return the number of drops after each epoch until the schedule stops, and the final state."""
    state, drops = ScheduleState(), []
    for epoch, error in enumerate(errors, start=1):
        state = advance(schedule, state, epoch, epochs, error, CHANCE)
        drops.append(state.drops)
        if state.stopped:
            break
    return drops, state


def test_steps_are_those_of_the_2010_run() -> None:
    drops, state = drops_after_each_epoch(Steps(), [50.0] * 200, epochs=93)
    assert len(drops) == 93
    assert state.stopped
    assert [drops.index(k) + 1 for k in (1, 2, 3)] == [23, 51, 78]


def test_plateau_drops_three_times_then_stops() -> None:
    drops, state = drops_after_each_epoch(Plateau(patience=2), [60, 50, 55, 50, 49, 49, 49, 48, 48, 48, 48, 48, 48])
    # best 50 at epoch 2; epochs 3 and 4 are no better; then 49 at 5, 48 at 8, and nothing after.
    assert drops == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert state.stopped


def test_plateau_waits_for_a_net_that_has_not_left_chance() -> None:
    stall = [90.0, 90.5, 89.9] * 10
    drops, _ = drops_after_each_epoch(Plateau(patience=2), [*stall, 70.0, 70.0, 70.0])
    assert drops == [0] * 30 + [0, 0, 1]


def test_plateau_counts_once_chance_is_left_even_if_the_error_returns_to_it() -> None:
    drops, _ = drops_after_each_epoch(Plateau(patience=2), [70.0, 90.0, 90.0])
    assert drops == [0, 0, 1]


@pytest.mark.parametrize(("error", "left"), [(90.0, False), (87.2, False), (87.1, True), (95.0, False)])
def test_chance_is_left_by_three_standard_errors(error: float, left: bool) -> None:
    assert CHANCE.left(error) is left  # one standard error of 90% on 1,000 images is 0.949 points


def test_epochs_bound_every_schedule() -> None:
    for schedule in (Plateau(), Steps()):
        drops, state = drops_after_each_epoch(schedule, range(60, 0, -1), epochs=7)
        assert len(drops) == 7
        assert state.stopped


def test_steps_within_an_epoch_apply_from_their_update_on() -> None:
    schedule = Steps(after=(2.16, 6), epochs=6.65)
    passes = (0.0, 2.15, 2.16, 5.99, 6.0)
    assert [divide(schedule, ScheduleState(), each).drops for each in passes] == [0, 0, 1, 1, 2]
    assert divide(Plateau(), ScheduleState(drops=2), 80.0) == ScheduleState(drops=2)
