"""The records that training, evaluation and other measurements write; imports no torch.

Files in a run's folder, <runs>/<variant>-<recipe>-<scale>-seed<k>/:

    run.json                       a `RunRecord`: everything needed to repeat the run; written first, and once more with
                                   `ended` when training ends
    mean.npy                       mean image that is subtracted from images, float32 [S, S, 3] of values 0–255
    log.jsonl                      an `EpochRecord` per line
    checkpoints/                   until the run is finished
    weights.safetensors.sha256     checksum of the weights, in the format of `sha256sum -c`
    weights.safetensors            written last
    conv1.safetensors              conv1's kernels, in records that are published without the weights
    .lock                          held by the process that trains the run
    evaluation-<split>-<views>.json    an `EvaluationRecord`, with predictions-<split>-<views>.npz; the names of
                                       those on another store than the run's own end in -on-<store>
    retrieval-<split>.json             a `RetrievalRecord`, with retrieval-<split>.npz
    activations-<split>.json           an `ActivationsRecord`; of the initial weights activations-<split>-untrained.json

The evaluation of an ensemble has its own folder beside the runs'. Files of an ensemble whose weights were searched
end in "-searched".

One module each: names of the files (`file_names`), their contents (`schema`), strict writing (`writing`), lenient
reading (`reading`, `conversion`), and what is read, with its folder (`runs`).
"""

from repro.records.file_names import (
    ACTIVATIONS,
    CHECKPOINTS,
    CONV1,
    EVALUATIONS,
    LOCK,
    LOG,
    MEAN,
    RETRIEVALS,
    RUN,
    WEIGHTS,
    WEIGHTS_CHECKSUM,
    WEIGHTS_OF_CONV1,
    activations_name,
    evaluation_name,
    predictions_name,
    retrieval_arrays_name,
    retrieval_name,
    run_name,
    submission_name,
)
from repro.records.reading import (
    check_epoch,
    end_reason,
    read_activations,
    read_evaluation,
    read_log,
    read_records,
    read_retrieval,
    read_run,
)
from repro.records.runs import Activations, Evaluation, Records, Retrieval, Run
from repro.records.schema import (
    BASELINE,
    NET,
    SPACES,
    ActivationsRecord,
    ClassRecord,
    DataRecord,
    EndRecord,
    EpochRecord,
    Estimate,
    EvaluationRecord,
    LayerActivity,
    MachineRecord,
    NetRecord,
    Origin,
    PreprocessingRecord,
    Provenance,
    RetrievalRecord,
    RunRecord,
)
from repro.records.writing import to_json, write_mean, write_record, write_weights

__all__ = [
    "ACTIVATIONS",
    "BASELINE",
    "CHECKPOINTS",
    "CONV1",
    "EVALUATIONS",
    "LOCK",
    "LOG",
    "MEAN",
    "NET",
    "RETRIEVALS",
    "RUN",
    "SPACES",
    "WEIGHTS",
    "WEIGHTS_CHECKSUM",
    "WEIGHTS_OF_CONV1",
    "Activations",
    "ActivationsRecord",
    "ClassRecord",
    "DataRecord",
    "EndRecord",
    "EpochRecord",
    "Estimate",
    "Evaluation",
    "EvaluationRecord",
    "LayerActivity",
    "MachineRecord",
    "NetRecord",
    "Origin",
    "PreprocessingRecord",
    "Provenance",
    "Records",
    "Retrieval",
    "RetrievalRecord",
    "Run",
    "RunRecord",
    "activations_name",
    "check_epoch",
    "end_reason",
    "evaluation_name",
    "predictions_name",
    "read_activations",
    "read_evaluation",
    "read_log",
    "read_records",
    "read_retrieval",
    "read_run",
    "retrieval_arrays_name",
    "retrieval_name",
    "run_name",
    "submission_name",
    "to_json",
    "write_mean",
    "write_record",
    "write_weights",
]
