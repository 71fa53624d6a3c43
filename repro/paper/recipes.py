"""Training recipes: the text's, and that of the authors' own 2012 program.

Every constant is defined here once, with the section of the paper that it comes from. "program" marks what only the
authors' released program says, "ours" what neither source says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Initialisation:
    """Initial weights, drawn from N(0, std²), and initial biases (Sec. 5).

    Attributes:
        std: standard deviation of the weights. None for 1/√n in a layer whose neurons have n inputs each.
        std_of: exceptions, as pairs of a layer's name and its standard deviation.
        ones: layers whose biases start at 1; all other biases start at 0.
    """

    std: float | None = 0.01
    std_of: tuple[tuple[str, float], ...] = ()
    ones: tuple[str, ...] = ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")

    def weight_std(self, layer: str, inputs: int) -> float:
        """Return the standard deviation of the initial weights of `layer`, whose neurons have `inputs` inputs each."""
        std = dict(self.std_of).get(layer, self.std)
        return inputs**-0.5 if std is None else std

    def bias(self, layer: str) -> float:
        """Return the initial bias of `layer`."""
        return 1.0 if layer in self.ones else 0.0


@dataclass(frozen=True)
class Colour:
    """Colour augmentation along the principal components of the training set's RGB values, once per image (Sec. 4.1).

    An image becomes (x + Σ_i p_i · α_i · s_i) / divide_by with α_i ~ N(0, std²), where p_i are the eigenvectors of
    the RGB covariance.

    Attributes:
        spread: what s_i is. "eigenvalue" (text): the eigenvalue, on values from 0 to 1. "deviation" (program): its
            square root, on values from 0 to 255.
        std: standard deviation of α_i.
        divide_by: divisor of the noisy image.
    """

    spread: str
    std: float = 0.1
    divide_by: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """Preprocessing and augmentation of a training image (Sec. 4.1).

    Attributes:
        crops: random crops; False for the centre crop.
        mirror: horizontal flips with probability 0.5.
        colour: colour augmentation; None for none.
        draws_shared_by: number of consecutive images of an epoch that share one crop offset and one flip.
        mean_of_patch: subtract the mean image at the crop's position; False for the mean image's centre crop.
        inputs_divided_by: divisor of the net's inputs, which are otherwise values of 0–255, in training and testing.
    """

    crops: bool = True
    mirror: bool = True
    colour: Colour | None = None
    draws_shared_by: int = 1
    mean_of_patch: bool = True
    inputs_divided_by: float = 1.0


@dataclass(frozen=True)
class Plateau:
    """Divide the learning rate by 10 when the validation error stops improving (Sec. 5).

    The error has stopped improving (ours) when there was no new lowest top-1 error for `patience` epochs. Epochs
    are counted only once the net is better than chance; otherwise a slow start would use up the divisions.

    Attributes:
        drops: number of divisions; the next plateau ends training.
        patience: length of a plateau, in epochs.
        epochs: maximum number of epochs.
    """

    drops: int = 3
    patience: int = 5
    epochs: int = 90


@dataclass(frozen=True)
class Steps:
    """Divide the learning rate by 10 at fixed times; the defaults are those of the program's run on ILSVRC-2010.

    Times count passes over the training set: 23 is the end of the 23rd epoch, 2.16 is within the third.

    Attributes:
        after: times at which the learning rate is divided.
        epochs: time at which training ends.
    """

    after: tuple[float, ...] = (23, 51, 78)
    epochs: float = 93


@dataclass(frozen=True)
class LrChange:
    """Multiply the learning rate of some parameters from a certain time on; changes multiply with each other.

    Attributes:
        pattern: shell pattern of the parameters' names, such as "conv1.*" or "*.bias".
        factor: factor on the learning rate; 0 freezes the parameters, which are then not updated at all.
        after: passes over the training set after which the change applies; 2.16 is within the third epoch.
        after_updates: updates after which the change applies, if that is later.
    """

    pattern: str
    factor: float
    after: float = 0.0
    after_updates: int = 0


@dataclass(frozen=True)
class HeldOut:
    """Validation images taken from the end of the training split, and trained on too from a certain time on.

    A run that is not longer than `epochs` trains on the whole split from the start, without validation images.

    Attributes:
        share: fraction of the training split that is held out.
        epochs: number of epochs during which it is held out.
    """

    share: float
    epochs: int

    def applies(self, length: float) -> bool:
        """Return whether a run of `length` epochs holds images out at first."""
        return length > self.epochs


@dataclass(frozen=True)
class Recipe:
    """Everything about training except the net, the dataset, the scale and the seed.

    Attributes:
        name: "authors", "paper" or "fan-in".
        source: where the recipe comes from.
        initialisation: initial weights and biases.
        augmentation: preprocessing and augmentation of training images.
        schedule: when the learning rate is divided by 10, and when training ends.
        batch_size: images per update, over all ranks together.
        lr: initial learning rate of the weights.
        momentum: factor on the velocity in each update.
        weight_decay: factor on lr · weight in each update.
        weight_decay_of: exceptions, as pairs of a layer's name and the weight decay of its weights.
        bias_lr_ratio: initial learning rate of the biases, over that of the weights.
        bias_decay: whether weight decay applies to biases too.
        unscheduled: shell patterns of the parameters whose learning rate the schedule does not divide.
        lr_changes: changes of the learning rate of single layers, on top of the schedule.
        colour_until: passes over the training set after which colour augmentation ends; None for never.
        held_out: validation images taken from the training split; None if it is trained on as it is.
        load_patterns: shell patterns of the parameters that a run started with `--init-from` loads.
    """

    name: str
    source: str
    initialisation: Initialisation
    augmentation: Augmentation
    schedule: Plateau | Steps
    batch_size: int = 128  # Sec. 5
    lr: float = 0.01  # Sec. 5
    momentum: float = 0.9  # Sec. 5
    weight_decay: float = 0.0005  # Sec. 5
    weight_decay_of: tuple[tuple[str, float], ...] = ()
    bias_lr_ratio: float = 1.0
    bias_decay: bool = True
    unscheduled: tuple[str, ...] = ()
    lr_changes: tuple[LrChange, ...] = ()
    colour_until: float | None = None
    held_out: HeldOut | None = None
    load_patterns: tuple[str, ...] = ("*",)

    def decay_of(self, parameter: str) -> float:
        """Return the weight decay of a parameter, such as "fc8.weight"."""
        layer, _, kind = parameter.rpartition(".")
        if kind == "bias" and not self.bias_decay:
            return 0.0
        return dict(self.weight_decay_of).get(layer, self.weight_decay)

    def lr_of(self, parameter: str, drops: int = 0, epochs: float = 0.0, updates: int = 0) -> float:
        """Return the learning rate of a parameter, such as "conv1.bias"; 0 if it is frozen.

        `drops` is the number of divisions by the schedule so far, `epochs` the number of passes over the training
        set (2.5 in the middle of the third) and `updates` the number of updates.
        """
        lr = self.lr * (self.bias_lr_ratio if parameter.endswith(".bias") else 1.0)
        if not any(fnmatchcase(parameter, pattern) for pattern in self.unscheduled):
            lr *= 0.1**drops
        for change in self.lr_changes:
            begun = epochs >= change.after and updates >= change.after_updates
            if begun and fnmatchcase(parameter, change.pattern):
                lr *= change.factor
        return lr


PAPER = Recipe(
    name="paper",
    source="the text, to the letter",
    initialisation=Initialisation(),
    augmentation=Augmentation(colour=Colour("eigenvalue")),
    schedule=Plateau(),
)

# What the program's operator changed by hand: at epoch 67 or 68 (the earlier is taken) colour augmentation was switched
# off and conv1's learning rate was lowered, and at 72 conv1 was frozen.
_CONV1_LATE = (LrChange("conv1.*", 0.1, after=66), LrChange("conv1.*", 0.0, after=71))

# The run on ILSVRC-2010. Its files end with a tenth of the biases' first learning rate; that it was lowered together
# with conv1's is ours, since the time is not recorded. The biases of conv1 are lowered twice.
AUTHORS = Recipe(
    name="authors",
    source="the authors' program of 2012, net 145 on ILSVRC-2010",
    initialisation=Initialisation(std_of=(("conv3", 0.03), ("conv4", 0.03), ("conv5", 0.03), ("conv6", 0.03))),
    augmentation=Augmentation(colour=Colour("deviation", divide_by=1.1), draws_shared_by=32, mean_of_patch=False),
    schedule=Steps(),
    bias_lr_ratio=2.0,
    bias_decay=False,
    unscheduled=("*.bias",),
    lr_changes=(LrChange("*.bias", 0.1, after=66), *_CONV1_LATE),
    colour_until=66,
)
# The run on ILSVRC-2012: other times, and the biases keep their learning rate to the end.
AUTHORS_2012 = replace(
    AUTHORS,
    source="the authors' program of 2012, net 145 on ILSVRC-2012",
    schedule=Steps(after=(25, 51, 79), epochs=91),
    lr_changes=_CONV1_LATE,
)
# The net with conv6 on one half of Fall 2009, from random weights, as net 141 was trained there. The program's run was
# restarted after 28.3 epochs at a learning rate of 0.001; how that ended is not recorded, and it is left out.
AUTHORS_FALL2009 = replace(
    AUTHORS,
    source="the authors' program of 2012, net 141 on half of Fall 2009",
    schedule=Steps(after=(6.26, 13.34, 25.37), epochs=28.3),
    lr_changes=(LrChange("conv[12].*", 0.1, after=18.24), LrChange("conv[12].*", 0.0, after=21.19)),
    colour_until=18.24,
)

# The stages of the authors' net 146, "1 CNN*" of Table 2. Throughout, biases learn at 0.02, those of conv6 at 0.002,
# and the schedule does not divide that.
_CONV6_BIAS = LrChange("conv6.bias", 0.1)
# Stage 1: conv1 to conv5 of net 145 on Fall 2009. conv6 and the fully-connected layers start at 0.01.
CONV6_FALL2009 = replace(
    AUTHORS,
    source="the authors' program of 2012, net 146 on Fall 2009, starting from net 145's conv layers",
    schedule=Steps(after=(2.16,), epochs=6.65),
    unscheduled=("*.bias", "conv[1-5].weight"),
    lr_changes=(LrChange("conv[1-5].weight", 0.1), _CONV6_BIAS),
    colour_until=None,
    load_patterns=("conv[1-5].*",),
)
# Stage 2: all conv layers of stage 1 on Fall 2011, with new fully-connected layers at 0.01.
CONV6_FALL2011 = replace(
    CONV6_FALL2009,
    source="the authors' program of 2012, net 146 on Fall 2011, starting from its conv layers on Fall 2009",
    schedule=Steps(after=(6,), epochs=8.11),
    unscheduled=("*.bias", "conv*.weight"),
    lr_changes=(LrChange("conv*.weight", 0.1), _CONV6_BIAS),
    load_patterns=("conv*",),
)
# Stage 3b: everything but the last layer of stage 1, fine-tuned on ILSVRC-2012.
CONV6_FROM_FALL2009 = replace(
    AUTHORS,
    source="the authors' program of 2012, net 146 on Fall 2009, fine-tuned on ILSVRC-2012",
    schedule=Steps(after=(22, 42), epochs=52),
    lr=0.001,
    bias_lr_ratio=20.0,
    lr_changes=(
        LrChange("conv1.weight", 0.1),
        LrChange("conv1.weight", 0.1, after=3),
        LrChange("conv1.*", 0.0, after=4),
        _CONV6_BIAS,
    ),
    colour_until=38,
    load_patterns=("conv*", "fc6.*", "fc7.*"),
)
# Stage 3a: everything but the last layer of stage 2, fine-tuned on ILSVRC-2012. conv6's biases end at 0.022; that they
# change at the last division is ours, since the time is not recorded.
CONV6_FROM_FALL2011 = replace(
    CONV6_FROM_FALL2009,
    source="the authors' program of 2012, net 146 on Fall 2009 and 2011, fine-tuned on ILSVRC-2012",
    schedule=Steps(after=(22, 42), epochs=54),
    lr_changes=(
        LrChange("conv1.weight", 0.1),
        LrChange("conv1.weight", 0.1, after=5),
        LrChange("conv1.*", 0.0, after=7),
        LrChange("fc8.weight", 10.0, after_updates=300),
        LrChange("fc8.weight", 0.1, after=9),
        _CONV6_BIAS,
        LrChange("conv6.bias", 11.0, after=42),
    ),
)
# Fine-tuning by the text, which gives no learning rate for it: a tenth of the first one is ours.
PAPER_FINE_TUNING = replace(
    PAPER,
    source="the text, pre-trained on Fall 2011 and fine-tuned on ILSVRC-2012",
    lr=0.001,
    load_patterns=("conv*", "fc6.*", "fc7.*"),
)

# Figure 1: "no regularisation of any kind was employed"; the learning rate is chosen from a grid.
CIFAR_FOUR_LAYERS = Recipe(
    name="authors",
    source="the authors' program, the 19% net",
    initialisation=Initialisation(std_of=(("conv1", 0.0001),), ones=()),
    augmentation=Augmentation(crops=False, mirror=False),
    schedule=Steps(after=(), epochs=60),
    lr=0.001,
    weight_decay=0.0,
    bias_lr_ratio=2.0,
    bias_decay=False,
)

# Ours: shows how much of Figure 1's ratio depends on the initialisation. Activations keep their size from layer to
# layer, and tanh does not saturate from the start.
CIFAR_FAN_IN = replace(
    CIFAR_FOUR_LAYERS,
    name="fan-in",
    source="not in the paper: initialisation by fan-in, on inputs of unit size",
    initialisation=Initialisation(std=None, ones=()),
    augmentation=replace(CIFAR_FOUR_LAYERS.augmentation, inputs_divided_by=50.0),
    lr=0.01,
)

# The nets of Sec. 3.3. The fifth batch of training images is held out until the error no longer improves, then trained
# on too; at the end the learning rate of the weights is divided by 10 twice, for 10 epochs each.
CIFAR_LOCAL = replace(
    CIFAR_FOUR_LAYERS,
    source="the authors' program, the 13% net",
    initialisation=Initialisation(std_of=(("conv1", 0.0001), ("local3", 0.04), ("local4", 0.04)), ones=()),
    augmentation=Augmentation(mean_of_patch=False),
    schedule=Steps(after=(500, 510), epochs=520),
    weight_decay_of=(("local3", 0.004), ("local4", 0.004), ("fc10", 0.004)),
    unscheduled=("*.bias",),
    held_out=HeldOut(share=0.2, epochs=350),
)
CIFAR_LOCAL_LRN = replace(
    CIFAR_LOCAL,
    source="the authors' program, the 11% net",
    weight_decay_of=(("local3", 0.004), ("local4", 0.004), ("fc10", 0.01)),
)

RECIPES = {recipe.name: recipe for recipe in (AUTHORS, PAPER)}
