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
