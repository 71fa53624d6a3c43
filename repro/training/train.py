"""`repro train`: train a run in its folder, with a log, checkpoints, and the weights at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import safetensors.torch

from repro.data.store import Store, open_store
from repro.errors import ReproError, Stopped
from repro.formatting import command_line
from repro.models.allocator import keep_freed_memory
from repro.models.devices import float32_products
from repro.notes import note_once
from repro.paper.networks import network_record
from repro.provenance import current_provenance, data_record
from repro.records.file_names import CHECKPOINTS
from repro.records.reading import end_reason, read_log
from repro.records.runs import Run
from repro.records.schema import EpochRecord, PreprocessingRecord, RunRecord
from repro.records.writing import write_mean
from repro.run_folder import append_log, differences, finish_run, locked_run, truncate_log
from repro.training import checkpoint
from repro.training.distributed import join_process_group
from repro.training.fine_tuning import origin
from repro.training.loop import Step, Validating, train_epochs
from repro.training.schedule import exhausted
from repro.training.settings import Settings
from repro.training.state import Training, prepare_training

SAVE_MINUTES = 10.0  # the most that a crash costs


@dataclass(frozen=True)
class Started:
    """The first event of a run.

    Attributes:
        path: the run's folder.
        epoch: number of the epoch that is trained first, from 1.
        epochs: maximum number of epochs.
        batches: number of batches in an epoch.
    """

    path: Path
    epoch: int
    epochs: int
    batches: int


@dataclass(frozen=True)
class AlreadyFinished:
    """The only event of a run that is resumed although it is finished.

    Attributes:
        path: the run's folder.
        epochs: number of epochs that were trained.
    """

    path: Path
    epochs: int


Event = Started | AlreadyFinished | Step | Validating | EpochRecord


def train(
    settings: Settings,
    data: Path,
    out: Path,
    resume: bool = False,
    stop_signal: Callable[[], int | None] = lambda: None,
    save_minutes: float = SAVE_MINUTES,
    resume_from: Path | None = None,
    keep_checkpoints: bool = False,
) -> Iterator[Event]:
    """Train a run in its folder below `out`, with a log and checkpoints; yield its events.

    Checkpoints are saved after every epoch, and within an epoch every `save_minutes`.

    Args:
        settings: variant, recipe, scale, seed and the other settings of the run.
        data: folder of the store.
        out: folder of runs.
        resume: continue from the newest checkpoint, or start if there is none; a finished run yields AlreadyFinished,
            and none of its files change.
        stop_signal: called after every update and every batch of validation; once it returns the number of a signal,
            the run is saved and Stopped is raised.
        save_minutes: minutes between two checkpoints within an epoch.
        resume_from: one of the run's checkpoints to continue from, either of its files. A damaged newest checkpoint
            is skipped with a warning; a damaged `resume_from`, and one of a finished run, are errors.
        keep_checkpoints: keep the last two checkpoints of the finished run, from which it can be trained for more
            epochs.

    Raises ReproError for settings, data or files that the user has to fix.
    """
    keep_freed_memory()
    with join_process_group() as group, ExitStack() as stack:
        training = group.run_checked(lambda: prepare_training(settings, open_store(data), group))
        stack.enter_context(float32_products(settings.precision))
        record = _record(settings, training, data, out)
        main = msgspec.convert(group.broadcast(msgspec.to_builtins(record)), RunRecord)
        group.run_checked(lambda: _check_same_run(main, record))
        folder = out / settings.run_name

        def open_folder() -> Run | None:
            if not group.is_main:  # only rank 0 uses the folder
                return None
            if resume_from:
                _check_belongs(resume_from, folder)
            resumed = resume or resume_from is not None
            run = stack.enter_context(locked_run(folder, record, resumed, training.nbytes))
            if resume_from and run.has_weights:
                raise ReproError(
                    f"'{folder}' is finished after {len(run.log)} epochs, and does not continue from '{resume_from}': "
                    "leave out --checkpoint, ask for more --epochs, or choose another --out"
                )
            return run

        run = group.run_checked(open_folder)
        if group.broadcast(run is not None and run.has_weights):
            if run:
                yield AlreadyFinished(run.folder, len(run.log))
            return
        saved = group.run_checked(lambda: _load_checkpoint(run, resume_from) if run else None)
        if saved and run:
            _note_rounding(run, record)
            training.restore(saved)
            _continue_if_extended(run, training)
        if run:
            truncate_log(run, training.epoch - 1)
        training.synchronize()
        if run and not run.mean_path.exists():
            write_mean(run.folder, training.store.mean)
        if run:
            yield Started(run.folder, training.epoch, training.epochs, training.batches)
        for event in _train_and_save(training, run, stop_signal, save_minutes):
            if run:
                yield event
        if run:
            # Without another reason it was the plateau rule that stopped the schedule.
            reason = end_reason(run, tuple(read_log(run.log_path))) or "plateau"
            finish_run(run, reason, safetensors.torch.save(training.weights()))
            if not keep_checkpoints:
                checkpoint.remove_all(run.checkpoints_path)


def _note_rounding(run: Run, record: RunRecord) -> None:
    """Note where `run` continues with other numbers of threads or ranks than it was started with."""
    threads = run.machine.threads, record.machine.threads
    for what, before, now in (("threads", *threads), ("ranks", run.ranks, record.ranks)):
        if before not in (None, now):
            note_once(
                f"this run was started with {before} {what} and continues with {now}: its results may differ in "
                "rounding"
            )


def _continue_if_extended(run: Run, training: Training) -> None:
    """Let training continue after the epoch at which it had ended, if it ended there for want of more epochs."""
    log = tuple(epoch for epoch in read_log(run.log_path) if epoch.epoch < training.epoch)
    plateau = exhausted(training.configuration.recipe.schedule, training.schedule)
    if training.schedule.stopped and not plateau and end_reason(run, log) is None:
        training.schedule = replace(training.schedule, stopped=False)


def _check_belongs(path: Path, folder: Path) -> None:
    """Raise ReproError if `path` is no checkpoint of the run in `folder`."""
    if path.resolve().parent != (folder / CHECKPOINTS).resolve():
        raise ReproError(
            f"the checkpoint '{path}' is not one of the run '{folder}': name one in its folder {CHECKPOINTS}"
        )
    if not path.exists():
        raise ReproError(f"no checkpoint at '{path}': only the newest two are kept, and none of a finished run")


def _load_checkpoint(run: Run, path: Path | None) -> checkpoint.Checkpoint | None:
    """Return the checkpoint at `path`, else the newest one that is not damaged, or None if there is none.

    Raises ReproError for a finished run, whose weights are missing, unless a checkpoint is left to finish it from.
    """
    if path is None:
        saved = checkpoint.load_newest(run.checkpoints_path)
    else:
        try:
            saved = checkpoint.load(path.with_suffix(".json"))
        except ReproError as error:
            raise ReproError(f"{error}: --resume alone continues from the newest undamaged one") from error
    if saved is None and run.finished:
        run.require_weights()
    if saved:
        # Before the log is truncated: after a crash, a newer checkpoint would be ahead of the log.
        checkpoint.remove_newer(saved)
    return saved


def _train_and_save(
    training: Training, run: Run | None, stop_signal: Callable[[], int | None], save_minutes: float
) -> Iterator[Step | Validating | EpochRecord]:
    """Yield the events of `train_epochs`; write the log and checkpoints into the folder of `run`, if there is one.

    Checkpoints are written while training continues, and are complete when the generator ends, for whatever reason.
    Raises ReproError on all ranks, before anything is saved, if the training has diverged.
    """
    last_save = time.monotonic()

    def request() -> int:
        """Return twice the number of a signal, or 0, plus 1 if it is time to save."""
        return 2 * (stop_signal() or 0) + (time.monotonic() - last_save > 60 * save_minutes)

    several = training.group.world_size > 1
    if several:
        training.save_due = lambda: request() > 0
    with checkpoint.Saver(run.checkpoints_path if run else None) as saver:
        for event in train_epochs(training):
            saver.check()
            if run and isinstance(event, EpochRecord):
                append_log(run, event)
            if several and isinstance(event, Step) and not event.save_due:
                yield event  # no rank has a request: their flags were summed with the gradients
                continue
            signal, timed_out = divmod(training.group.max(request()), 2)
            if signal or timed_out or isinstance(event, EpochRecord):
                training.check_finite()
                saver.save(training)
                last_save = time.monotonic()
            if signal:
                saver.wait()
            yield event
            if signal:
                training.group.barrier()  # torchrun ends all ranks when one ends: rank 0 has to save before
                raise Stopped(signal, f"saved after update {training.step}; continue with --resume")


def describe(settings: Settings, store: Store) -> RunRecord:
    """Return the part of a run's `run.json` that decides the result: all but where and with what it is computed.

    Raises ReproError for unknown names, or an initial run that does not exist.
    """
    configuration = settings.configure(len(store.classes), store.dataset)
    length = settings.epochs or configuration.length
    return RunRecord(
        variant=settings.variant,
        recipe=settings.recipe,
        scale=settings.scale,
        seed=settings.seed,
        epochs=math.ceil(length),
        length=length,
        until_train_error=settings.until_train_error,
        precision=settings.precision,
        init_from=origin(settings.init_from) if settings.init_from else None,
        network=network_record(configuration.network),
        input_size=configuration.network.input_size,
        preprocessing=PreprocessingRecord(
            image_size=store.size,
            crop_size=configuration.scale.crop_size,
            resize=store.resize,
            mean_of_patch=configuration.recipe.augmentation.mean_of_patch,
            inputs_divided_by=configuration.recipe.augmentation.inputs_divided_by,
            orientation=store.manifest.get("orientation", "stored"),
        ),
        settings=asdict(configuration.recipe),
        data=data_record(store),
    )


def _record(settings: Settings, training: Training, data: Path, out: Path) -> RunRecord:
    """Return the contents of the run's `run.json`."""
    return replace(
        describe(settings, training.store),
        devices=tuple(map(str, training.devices)),
        ranks=training.group.world_size,
        command=command_line(settings.to_argv(data, out, training.group.launch_words())),
        **vars(current_provenance()),
    )


def _check_same_run(main: RunRecord, record: RunRecord) -> None:
    """Raise ReproError if this rank was started with other settings or data than rank 0."""
    if differing := differences(main, record):
        raise ReproError(f"this run differs from rank 0's: {'; '.join(differing)}; start all ranks with equal options")
