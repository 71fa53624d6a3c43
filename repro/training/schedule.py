"""The learning-rate schedule and the end of training, as a pure function from state to state (Sec. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from repro.paper.recipes import Plateau, Steps


@dataclass(frozen=True)
class ScheduleState:
    """State of the schedule after an epoch.

    Attributes:
        drops: number of divisions of the learning rate by 10 so far.
        best: lowest validation error so far, in percent.
        waited: number of epochs since `best`.
        left_chance: whether the net has ever been significantly better than the best constant prediction.
        stopped: whether training ends here.
    """

    drops: int = 0
    best: float = 100.0
    waited: int = 0
    left_chance: bool = False
    stopped: bool = False


def divide(schedule: Plateau | Steps, state: ScheduleState, passes: float) -> ScheduleState:
    """Return the state before an update, after `passes` over the training images: 2.5 in the middle of epoch 3."""
    if isinstance(schedule, Steps):
        return replace(state, drops=sum(passes >= drop for drop in schedule.after))
    return state


def advance(
    schedule: Plateau | Steps, state: ScheduleState, epoch: int, epochs: int, val_error: float, chance: Chance
) -> ScheduleState:
    """Return the state after `epoch` (from 1) of at most `epochs`, with its validation error in percent."""
    stopped = epoch >= epochs
    if isinstance(schedule, Steps):
        return replace(divide(schedule, state, epoch), stopped=stopped)
    left_chance = state.left_chance or chance.left(val_error)
    if val_error < state.best:
        return replace(state, best=val_error, waited=0, left_chance=left_chance, stopped=stopped)
    waited = state.waited + 1 if left_chance else 0
    if waited < schedule.patience:
        return replace(state, waited=waited, left_chance=left_chance, stopped=stopped)
    if state.drops == schedule.drops:
        return replace(state, waited=waited, stopped=True)
    return replace(state, drops=state.drops + 1, waited=0, stopped=stopped)


@dataclass(frozen=True)
class Chance:
    """Error of the best constant prediction, the most common class.

    Attributes:
        error: that error in percent.
        images: number of images that it is measured on.
    """

    error: float
    images: int

    def left(self, val_error: float) -> bool:
        """Return whether `val_error`, in percent, is below chance by more than three standard errors."""
        share = self.error / 100
        return val_error < self.error - 300 * math.sqrt(share * (1 - share) / self.images)


def exhausted(schedule: Plateau | Steps, state: ScheduleState) -> bool:
    """Return whether the plateau rule has ended training, whatever the number of epochs."""
    return isinstance(schedule, Plateau) and state.drops == schedule.drops and state.waited >= schedule.patience
