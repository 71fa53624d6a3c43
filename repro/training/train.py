"""`repro train`: one run in its folder, with log, checkpoints and the weights at the end."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import safetensors.torch

from repro import atomic
from repro.data.store import open_store
from repro.errors import ReproError, Stopped
from repro.models.allocator import keep_freed_memory
from repro.provenance import current_provenance, data_record
from repro.records import CHECKPOINTS, EpochRecord, PreprocessingRecord, Run, RunRecord, run_name, write_mean
from repro.training import checkpoint
from repro.training.distributed import ProcessGroup, join_process_group
from repro.training.fine_tuning import origin
from repro.training.loop import Settings, Step, Training, Validating, prepare_training, train_epochs
from repro.training.run_folder import append_log, differences, locked_run, truncate_log

SAVE_MINUTES = 10.0  # what a crash costs at most


@dataclass(frozen=True)
class Started:
    """The first event of a run: where its folder is, and how long it may become."""

    path: Path
    epoch: int
    epochs: int
    batches: int


Event = Started | Step | Validating | EpochRecord


def train(
    settings: Settings,
    data: Path,
    out: Path,
    resume: bool = False,
    stop_signal: Callable[[], int | None] = lambda: None,
    save_minutes: float = SAVE_MINUTES,
    resume_from: Path | None = None,
) -> Iterator[Event]:
    """Train a run in its folder below `out`, with log and checkpoints; yields what happens.

    `resume` goes on from the newest checkpoint, or begins if there is none; a finished run yields nothing more.
    `resume_from` names one of the run's checkpoints to go on from instead, either of its files; a newest one that is
    damaged is passed over with a warning, a named one is an error.
    Checkpoints are saved after every epoch, and within one every `save_minutes`.
    `stop_signal` is asked after every update and every batch of validation; once it answers with a signal's number,
    the run is saved and Stopped is raised. Raises ReproError for settings, data or files that the user must mend.
    """
    keep_freed_memory()
    with join_process_group() as ranks, ExitStack() as held:
        training = ranks.together(lambda: prepare_training(settings, open_store(data), ranks))
        record = _record(settings, training, data)
        leader = msgspec.convert(ranks.tell(msgspec.to_builtins(record)), RunRecord)
        ranks.together(lambda: _check_same_run(leader, record))
        path = out / _name(settings, training)

        def claimed() -> Run:
            if resume_from:
                _check_named(resume_from, path)
            return held.enter_context(locked_run(path, record, resume or resume_from is not None))

        # The first rank alone has to do with the run's folder.
        run = ranks.together(lambda: claimed() if ranks.first else None)
        if ranks.tell(run is not None and run.finished):
            if run:
                _remove_checkpoints(run)  # of a run that was killed right after it had its weights
            return
        saved = ranks.together(lambda: _saved(run, resume_from) if run else None)
        if saved:
            training.restore(saved)
        if run:
            truncate_log(run, training.epoch - 1)
        training.follow_first_rank()
        if run and not run.mean_path.exists():
            write_mean(run.folder, training.store.mean)
        if run:
            yield Started(run.folder, training.epoch, training.epochs, training.batches)
        for event in _recorded(training, run, stop_signal, save_minutes):
            if run:
                yield event
        if run:
            weights = {name: value for name, value in training.tensors().items() if not name.startswith("velocity.")}
            content = safetensors.torch.save(weights)
            checksum = f"{hashlib.sha256(content).hexdigest()}  {run.weights_path.name}\n"
            atomic.write(run.checksum_path, checksum.encode())
            atomic.write(run.weights_path, content)
            _remove_checkpoints(run)


def _remove_checkpoints(run: Run) -> None:
    shutil.rmtree(run.checkpoints_path, ignore_errors=True)


def _check_named(named: Path, path: Path) -> None:
    """Raise ReproError if no checkpoint of the run at `path` has that name."""
    if named.resolve().parent != (path / CHECKPOINTS).resolve():
        raise ReproError(f"the checkpoint '{named}' is not one of the run '{path}': name one in its folder checkpoints")
    if not named.exists():
        raise ReproError(f"no checkpoint at '{named}': only the newest two are kept, and none of a finished run")


def _saved(run: Run, named: Path | None) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from: the one that was named, else the newest that is whole, None without any."""
    if named is None:
        saved = checkpoint.load_newest(run.checkpoints_path)
    else:
        try:
            saved = checkpoint.load(named.with_suffix(".json"))
        except ReproError as error:
            raise ReproError(f"{error}: --resume alone goes on from the newest one that is whole") from error
    if saved:
        # Before the log is cut, or whoever goes on after a crash would go on from one whose epochs are not in it.
        checkpoint.remove_newer(saved)
    return saved


def _recorded(
    training: Training, run: Run | None, stop_signal: Callable[[], int | None], save_minutes: float
) -> Iterator[Step | Validating | EpochRecord]:
    """`train_epochs`, with every epoch in the log, and checkpoints, if there is a `run` to keep them in."""
    last_save = time.monotonic()
    for event in train_epochs(training):
        if run and isinstance(event, EpochRecord):
            append_log(run, event)
        stopped_by = training.ranks.largest(stop_signal() or 0)
        due = stopped_by or isinstance(event, EpochRecord) or time.monotonic() - last_save > 60 * save_minutes
        if run and due:
            checkpoint.save(run.checkpoints_path, training.step, training.tensors(), training.state())
            last_save = time.monotonic()
        yield event
        if stopped_by:
            training.ranks.largest(0)  # torchrun ends all ranks when one ends: none may before the first has saved
            raise Stopped(stopped_by, f"saved after update {training.step}; go on with --resume")


def _name(settings: Settings, training: Training) -> str:
    """The name of the run's folder."""
    tuned = settings.init_from is not None and training.configuration.variant.begins_from is None
    return run_name(settings.variant, settings.recipe, settings.scale, [settings.seed], settings.lr, tuned)


def _record(settings: Settings, training: Training, data: Path) -> RunRecord:
    """Return the contents of the run's `run.json`."""
    configuration = training.configuration
    return RunRecord(
        variant=settings.variant,
        recipe=settings.recipe,
        scale=settings.scale,
        seed=settings.seed,
        epochs=training.epochs,
        until_train_error=settings.until_train_error,
        precision=settings.precision,
        devices=tuple(map(str, training.devices)),
        ranks=training.ranks.count,
        init_from=origin(settings.init_from) if settings.init_from else None,
        network=tuple({"layer": type(layer).__name__} | asdict(layer) for layer in configuration.network.layers),
        input_size=configuration.network.input_size,
        preprocessing=PreprocessingRecord(
            image_size=training.store.size,
            crop_size=configuration.scale.crop_size,
            mean_of_patch=configuration.recipe.augmentation.mean_of_patch,
            inputs_divided_by=configuration.recipe.augmentation.inputs_divided_by,
        ),
        settings=asdict(configuration.recipe),
        data=data_record(training.store),
        command=_command(settings, data, training.ranks),
        **vars(current_provenance()),
    )


def _command(settings: Settings, data: Path, ranks: ProcessGroup) -> str:
    """The command line that repeats the run."""
    words = ["repro", "train", "--variant", settings.variant, "--data", str(data), "--recipe", settings.recipe]
    if ranks.count > 1:
        machines = ["--nnodes", str(ranks.count // ranks.local_count)] if ranks.count > ranks.local_count else []
        words = ["torchrun", *machines, "--nproc-per-node", str(ranks.local_count), "-m", *words]
    words += ["--scale", settings.scale, "--seed", str(settings.seed)]
    words += ["--epochs", str(settings.epochs)] if settings.epochs else []
    words += ["--until-train-error", str(settings.until_train_error)] if settings.until_train_error else []
    words += ["--lr", str(settings.lr)] if settings.lr else []
    words += ["--devices", settings.devices] if settings.devices else []
    words += ["--init-from", str(settings.init_from)] if settings.init_from else []
    return shlex.join([*words, "--precision", settings.precision])


def _check_same_run(leader: RunRecord, record: RunRecord) -> None:
    """Raise ReproError if this rank was started with other settings or data than the first."""
    differing = differences(leader, record)
    if differing:
        raise ReproError(f"this is another run than rank 0's: {'; '.join(differing)}; start all ranks alike")
