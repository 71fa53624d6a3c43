"""From the text's recipe to the program's, one difference at a time: how soon the net leaves chance."""

from __future__ import annotations

import math
from collections import defaultdict

from repro.paper.experiments import RECIPE_DIFFERENCES
from repro.records.runs import Records, Run
from repro.report.measurements.context import Context, context_of, fine_tuned, precedence
from repro.report.measurements.grid import one_per_seed
from repro.report.measurements.runs import final_error
from repro.report.measurements.seeds import mean_of
from repro.report.table import Cell, Section, Table, columns

NETS = tuple(dict.fromkeys(each.net for each in RECIPE_DIFFERENCES.requirements))
RECIPES = {"paper": "the text", "authors": "the program"}


def recipe_table(records: Records) -> Table:
    """Return the runs of the experiment `recipes`: when each leaves chance, and its error at the end.

    Data and scales on which no difference was exchanged are left out.
    """
    places: dict[tuple[str, str], list[Run]] = defaultdict(list)
    contexts: dict[tuple[str, str], Context] = {}
    for run in records.runs:
        validated = run.finished and run.log and run.data.images.get("val")
        if run.variant in NETS and run.recipe in RECIPES and validated and not fine_tuned(run):
            context = context_of(run)
            place = context.data.fingerprint, str(context.scale)
            places[place].append(run)
            contexts[place] = context
    sections = []
    for place in sorted(places, key=lambda each: precedence(contexts[each])[:-1]):
        runs, context = places[place], contexts[place]
        if any(run.variant != "alexnet" for run in runs):
            rows = [
                _row(variant, recipe, chosen)
                for recipe in RECIPES
                for variant in NETS
                if (chosen := one_per_seed(run for run in runs if (run.variant, run.recipe) == (variant, recipe)))
            ]
            sections.append(Section(f"{context.data.description}, {context.scale.label}", rows))
    note = (
        "Each row takes one choice from the other recipe. A net leaves chance in the first epoch whose validation "
        "error is below that of guessing by three standard errors, and for good in the first after which it stays "
        "below; one number per seed. The error, in percent, is that of the last epoch on the validation images; in "
        "brackets the 95% interval over images, or over seeds."
    )
    heads = columns("Recipe", "Exchanged", "Leaves chance in epoch", "For good", "Validation error")
    return Table("recipes", "From the text’s recipe to the program’s", note, heads, sections)


def leaves_chance(run: Run, for_good: bool = False) -> int | None:
    """Return the first epoch whose validation error is below chance by three standard errors; None if there is none.

    With `for_good`, the errors of all later epochs must be, too.
    """
    chance = 1 - 1 / len(run.data.classes)
    threshold = 100 * (chance - 3 * math.sqrt(chance * (1 - chance) / run.data.images["val"]))
    better = [epoch.val_top1_error < threshold for epoch in run.log]
    if for_good:
        first = max((index + 1 for index, is_better in enumerate(better) if not is_better), default=0)
    else:
        first = next((index for index, is_better in enumerate(better) if is_better), len(better))
    return run.log[first].epoch if first < len(better) else None


def _epochs(runs: list[Run], for_good: bool) -> str:
    found = [leaves_chance(run, for_good) for run in runs]
    return ", ".join(
        f"not in {run.log[-1].epoch}" if epoch is None else str(epoch) for run, epoch in zip(runs, found, strict=True)
    )


def _row(variant: str, recipe: str, runs: list[Run]) -> list[Cell]:
    errors = [error for run in runs if (error := final_error(run, "val"))]
    exchanged = "nothing" if variant == "alexnet" else variant.removeprefix("swap-")
    epochs = [_epochs(runs, for_good) for for_good in (False, True)]
    return [RECIPES[recipe], exchanged, *epochs, errors[0] if len(errors) == 1 else mean_of(errors, rates=True)]
