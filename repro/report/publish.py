"""Copy the records of finished runs, to publish them: python -m repro.report.publish RUNS TARGET.

Of weights only conv1's kernels are taken, for Figure 3, and of retrievals only the measures, as their example images
are the dataset's. But for Figure 4, the report on the copies equals that on the runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.numpy import save

from repro import atomic
from repro.errors import ReproError
from repro.records.file_names import (
    ACTIVATIONS,
    CONV1,
    EVALUATIONS,
    LOG,
    PREDICTIONS,
    RETRIEVALS,
    RUN,
    WEIGHTS_OF_CONV1,
)
from repro.records.reading import read_records

USAGE = "python -m repro.report.publish RUNS TARGET"
RECORDS = (RUN, LOG, EVALUATIONS, PREDICTIONS, RETRIEVALS, ACTIVATIONS)


def publish(runs: Path, target: Path) -> list[Path]:
    """Copy the records of all finished runs below `runs`, and those of ensembles, to the same places below `target`.

    Returns the new folders. Files that are there already are replaced. Raises ReproError if there is no finished run,
    if a record cannot be read, or if a file cannot be written.
    """
    records = read_records(runs)
    if records.problems:
        raise ReproError(f"nothing is published: {'; '.join(records.problems)}")
    unfinished = {run.folder for run in records.runs if not run.finished}
    kernels = {run.folder: run.conv1() for run in records.runs}
    evaluations = {each.folder for each in records.evaluations}
    finished = sorted({*kernels, *evaluations} - unfinished)
    if not finished:
        raise ReproError(f"'{runs}' has no finished run")
    copies = []
    for folder in finished:
        copy = target / folder.relative_to(runs)
        try:
            copy.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReproError(f"cannot create the folder '{copy}': {error.strerror}") from error
        for pattern in RECORDS:
            for path in sorted(folder.glob(pattern)):
                atomic.write(copy / path.name, path.read_bytes())
        if (conv1 := kernels.get(folder)) is not None:
            atomic.write(copy / CONV1, save({WEIGHTS_OF_CONV1: conv1}))
        copies.append(copy)
    return copies


def main(arguments: list[str]) -> None:
    """Publish as the command line says."""
    if len(arguments) != 2:
        raise SystemExit(f"usage: {USAGE}")
    try:
        copies = publish(*map(Path, arguments))
    except ReproError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    print(f"published in {arguments[1]}: {len(copies)}")


if __name__ == "__main__":
    main(sys.argv[1:])
