"""Arguments and options of the commands, each declared once: type, metavar, help text, how the default is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Split = Literal["train", "val", "test"]
SearchSplit = Literal["val", "test"]
Views = Literal["1", "10"]
Encoding = Literal["raw", "jpeg"]
Resize = Literal["shorter-side", "squash"]
Orientation = Literal["exif", "stored"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Format = Literal["onnx", "torch-export", "timm", "state-dict"]
ReportFormat = Literal["page", "notebook"]
Listed = Literal["variants", "ensembles", "datasets", "experiments", "targets", "published", "runs"]

AUTO_DEVICE = "a GPU if there is one, else the CPU"

# Arguments
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="Name of the dataset, as shown by: repro list datasets")
]
ExperimentArgument = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Name of the experiment, as shown by: repro list experiments")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Folder of a finished run; the softmax outputs of several are averaged."),
]
PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help="A store, or the folder of a run.")]
ListArgument = Annotated[
    Listed,
    typer.Argument(
        metavar="WHAT",
        help="What to list: variants, ensembles, datasets, experiments, targets, published (nets of others) or runs.",
    ),
]

# Where files are
StoreOutOption = Annotated[Path, typer.Option("--out", metavar="STORE", help="Folder of the store to create.")]
DataOption = Annotated[Path, typer.Option("--data", metavar="STORE", help="Store made by `repro prepare`, or its URL.")]
RunsOutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder in which to create the run folders.")]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder with the runs, searched recursively.")]
ReportOutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write the report to.")]
DemoOutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the store, runs and report.")]

# prepare
SourceOption = Annotated[
    Path | None,
    typer.Option(
        "--source",
        metavar="PATH",
        help="Folder or archives with the images, or a URL such as s3://bucket/images.",
        show_default="downloaded or generated, where the dataset allows it",
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size",
        metavar="PIXELS",
        help="Size to which the shorter side is scaled and the square is cropped.",
        show_default="the dataset's own",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit-per-class", metavar="N", help="Maximum number of images per class.", show_default="all"),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Number of decoding processes.", show_default="one per CPU"),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="Address of a Dask scheduler whose workers decode the images."),
]
EncodingOption = Annotated[
    Encoding,
    typer.Option(
        "--encoding",
        metavar="raw|jpeg",
        help="Format of the stored pixels; jpeg takes a fifth of the disk but reads slower.",
    ),
]
AllowPartialOption = Annotated[
    bool, typer.Option("--allow-partial", help="Skip images and archives that are missing, with a note.")
]
OrientationOption = Annotated[
    Orientation | None,
    typer.Option(
        "--orientation",
        metavar="exif|stored",
        help="exif: turn photographs upright as their EXIF data say; stored: keep the pixels as stored.",
        show_default="exif for folder, stored for other datasets",
    ),
]
ResizeOption = Annotated[
    Resize,
    typer.Option(
        "--resize",
        metavar="shorter-side|squash",
        help="shorter-side: resize the shorter side, crop the centre (Sec. 2); squash: resize both, as Caffe did.",
    ),
]
NoSplitsOption = Annotated[
    bool,
    typer.Option("--no-splits", help="Treat every folder as a class, even one named train, val or test."),
]
PrepareSeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of random splits, subsets and generated images.")
]

# train and run
FeatureWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Number of processes that compute features (sift-fv, sparse-coding and pixels only).",
        show_default="one per CPU",
    ),
]
FeatureSchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Address of a Dask scheduler whose workers compute features (sift-fv, sparse-coding and pixels only).",
    ),
]
VariantOption = Annotated[
    str, typer.Option("--variant", metavar="NAME", help="Network to train, as shown by: repro list variants")
]
RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Training recipe: authors (the released program), paper (the text), fan-in (Figure 1 only). sift-fv, "
        "sparse-coding and pixels take none.",
    ),
]
ScaleOption = Annotated[
    str,
    typer.Option(
        "--scale", metavar="NAME", help="Size of the experiment: paper (224-pixel crops), small (112) or smoke (56)."
    ),
]
TrainSeedOption = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, help="Seed of the weights, the order of images, the crops and dropout."),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        "--epochs", metavar="N", min=1, help="Maximum number of epochs per run.", show_default="set by the scale"
    ),
]
LrOption = Annotated[
    float | None,
    typer.Option("--lr", metavar="LR", min=1e-9, help="Initial learning rate.", show_default="set by the recipe"),
]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="DEVICES",
        help="Device to compute on (cpu, cuda:0, ...); two, separated by a comma, hold one tower each.",
        show_default=AUTO_DEVICE,
    ),
]
ReplicasOption = Annotated[
    str | None,
    typer.Option(
        "--devices",
        metavar="DEVICES",
        help="Devices to compute on (cpu, cuda:0, ...), separated by commas; each takes a part of the images.",
        show_default=AUTO_DEVICE,
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="fp32|tf32|bf16|fp16",
        help="Number format of the computation; all but fp32 need hardware support.",
    ),
]
InitFromOption = Annotated[
    Path | None,
    typer.Option(
        "--init-from",
        metavar="RUN|FILE",
        help="Finished run, or file of published weights, that initialises the network (fine-tuning).",
    ),
]
UntilTrainErrorOption = Annotated[
    float | None,
    typer.Option(
        "--until-train-error",
        metavar="PERCENT",
        min=0,
        max=100,
        help="Stop once the training error of an epoch is at or below this percentage.",
    ),
]
SaveMinutesOption = Annotated[
    float,
    typer.Option("--save-minutes", metavar="MINUTES", min=0, help="Time between checkpoints within an epoch."),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Resume the run from its newest checkpoint, or start it if there is none.")
]
KeepCheckpointsOption = Annotated[
    bool,
    typer.Option(
        "--keep-checkpoints", help="Keep the last checkpoints of the finished run, to train it for more --epochs later."
    ),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="Checkpoint of this run to resume from.",
        show_default="with --resume, the newest",
    ),
]
StoresOption = Annotated[
    Path, typer.Option("--stores", metavar="DIR", help="Folder of the stores, each named after its dataset.")
]
StandInOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="STORE", help="Store used in place of every ImageNet dataset."),
]
ParallelOption = Annotated[
    bool,
    typer.Option("--parallel", help="Run independent commands at the same time, one on each of the --devices."),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Only list the commands; a learning rate not yet selected is shown as the first of its grid."
    ),
]

# evaluate, predict and retrieve
BatchSizeOption = Annotated[
    int,
    typer.Option(
        "--batch-size",
        metavar="N",
        min=1,
        max=65_536,
        help="Number of images to compute at once; a smaller one takes less memory.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, max=4096, help="Number of CPU threads.", show_default="one per core"),
]

# evaluate and retrieve
SplitOption = Annotated[
    Split,
    typer.Option(
        "--split",
        metavar="train|val|test",
        help="Split of the store to evaluate on. If its labels are private, a submission is written.",
    ),
]
SearchSplitOption = Annotated[
    SearchSplit, typer.Option("--split", metavar="val|test", help="Split of the store to take the queries from.")
]
ActivationsSplitOption = Annotated[
    Split, typer.Option("--split", metavar="train|val|test", help="Split of the store to take the images from.")
]
UntrainedOption = Annotated[
    bool, typer.Option("--untrained", help="Measure the net as it was before training, with its random weights.")
]
ViewsOption = Annotated[
    Views,
    typer.Option(
        "--views", metavar="1|10", help="Views per image: 1 is the centre crop, 10 the paper's ten (Sec. 4.1)."
    ),
]
SearchWeightsOption = Annotated[
    bool,
    typer.Option(
        "--search-weights", help="Average several runs with weights selected on val, instead of equal weights."
    ),
]
ConfusionOption = Annotated[
    Path | None,
    typer.Option(
        "--confusion", metavar="FILE", help="Also write the confusion matrix as CSV and show the largest confusions."
    ),
]

# predict
ImagesArgument = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="Image file, folder searched recursively, or - for standard input."),
]
PredictRunsOption = Annotated[
    list[Path] | None,
    typer.Option("--with", metavar="RUN", help="Further run to average with; may be given several times."),
]
TopOption = Annotated[int, typer.Option("--top", metavar="N", min=1, help="Number of classes to show per image.")]
LabelOption = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="CLASS",
        help="Class of the images, by id or name.",
        show_default="the name of the image's folder, if it is a class",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, a line per class and image.")]
FigureOption = Annotated[
    Path | None,
    typer.Option("--figure", metavar="FILE", help="Also draw images and bars as in Figure 4, to a PNG, SVG or PDF."),
]

# export
ExportOutOption = Annotated[
    Path, typer.Option("--out", metavar="PATH", help="File to write; for timm, the folder to create.")
]
FormatOption = Annotated[
    Format, typer.Option("--format", metavar="onnx|torch-export|timm|state-dict", help="Format of the exported net.")
]
PreprocessingOption = Annotated[
    bool,
    typer.Option(
        "--preprocessing", help="Put preprocessing and softmax into the graph: uint8 images in, probabilities out."
    ),
]
ExportViewsOption = Annotated[
    Views,
    typer.Option("--views", metavar="1|10", help="With --preprocessing: views that the graph averages (Sec. 4.1)."),
]

# import and audit
WeightsArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Weights of torchvision, Caffe, the ONNX zoo or cuda-convnet2.")
]
WeightsFilesArgument = Annotated[
    list[Path], typer.Argument(metavar="PATH...", help="Files of published weights, or folders that hold them.")
]
RunOutOption = Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run to create.")]
PublishedNameOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Published net, as shown by: repro list published",
        show_default="found from the file",
    ),
]
ClassesOption = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Classes in the order of the outputs: a development kit, or a text file with an id per line.",
        show_default="those of ILSVRC-2012, sorted by WordNet id",
    ),
]
MeanStoreOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="STORE", help="Store whose mean image is subtracted (cuda-convnet2 only)."),
]
AuditOutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write audit.json to.")]

# report
MoreRunsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[DIR]...",
        help="Folders with runs, in addition to those of --runs; with either, outputs/runs is not read.",
    ),
]
ReportRunsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--runs",
        metavar="DIR",
        help="Folder with the runs, searched recursively; may be given several times.",
        show_default="`outputs/runs`",
    ),
]
CompareOption = Annotated[bool, typer.Option("--compare", help="Compare every number with the paper's.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with code 4 if a claim is not reproduced.")]
ReportFormatOption = Annotated[
    ReportFormat,
    typer.Option(
        "--format",
        metavar="page|notebook",
        help="page: report.html with tables and figures; notebook: report.ipynb, which loads the records with pandas.",
    ),
]
TensorboardOption = Annotated[
    Path | None,
    typer.Option("--tensorboard", metavar="DIR", help="Folder to write the training curves to, for TensorBoard."),
]

# plan
ImagesPerSecondOption = Annotated[
    float | None,
    typer.Option(
        "--images-per-second",
        metavar="N",
        min=1e-9,
        help="Training speed of alexnet at scale paper.",
        show_default="measured",
    ),
]
