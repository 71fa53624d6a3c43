"""Training recipes: the text's, and that of the authors' own 2012 program.

Every constant is defined here once, with the section of the paper that it comes from. "program" marks what only the
authors' released program says, "ours" what neither source says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


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

    Attributes:
        after: epochs after which the learning rate is divided.
        epochs: number of epochs.
    """

    after: tuple[int, ...] = (23, 51, 78)
    epochs: int = 93


@dataclass(frozen=True)
class LrChange:
    """Multiply the learning rate of some parameters from a certain epoch on; changes multiply with each other.

    Attributes:
        epoch: first epoch with the changed learning rate, counted from 1.
        pattern: shell pattern of the parameters' names, such as "conv1.*" or "*.bias".
        factor: factor on the learning rate; 0 freezes the parameters.
    """

    epoch: int
    pattern: str
    factor: float


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
        bias_lr_ratio: initial learning rate of the biases, over that of the weights.
        bias_lr_follows_schedule: whether the schedule divides the learning rate of the biases too.
        bias_decay: whether weight decay applies to biases too.
        lr_changes: changes of the learning rate of single layers, on top of the schedule.
        colour_until: last epoch with colour augmentation; None for all epochs.
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
    bias_lr_ratio: float = 1.0
    bias_lr_follows_schedule: bool = True
    bias_decay: bool = True
    lr_changes: tuple[LrChange, ...] = ()
    colour_until: int | None = None
    load_patterns: tuple[str, ...] = ("*",)


PAPER = Recipe(
    name="paper",
    source="the text, to the letter",
    initialisation=Initialisation(),
    augmentation=Augmentation(colour=Colour("eigenvalue")),
    schedule=Plateau(),
)

AUTHORS = Recipe(
    name="authors",
    source="the authors' program of 2012, net 145",
    initialisation=Initialisation(std_of=(("conv3", 0.03), ("conv4", 0.03), ("conv5", 0.03), ("conv6", 0.03))),
    augmentation=Augmentation(colour=Colour("deviation", divide_by=1.1), draws_shared_by=32, mean_of_patch=False),
    schedule=Steps(),
    bias_lr_ratio=2.0,
    bias_lr_follows_schedule=False,
    bias_decay=False,
    # Changed by hand during the program's run. The epoch in which the biases' learning rate was lowered is not
    # recorded: ours.
    lr_changes=(LrChange(67, "*.bias", 0.1), LrChange(67, "conv1.*", 0.1), LrChange(72, "conv1.*", 0.0)),
    colour_until=66,
)

# The three stages of the authors' net 146, "1 CNN*" of Table 2. The length of the first is ours.
CONV6_FALL2009 = replace(
    AUTHORS,
    source="the authors' program, net 146 on Fall 2009, starting from net 145's convolutions",
    schedule=Steps(after=(12, 18), epochs=24),
    lr_changes=(LrChange(1, "conv[1-5].*", 0.1),),
    colour_until=None,
    load_patterns=("conv[1-5].*",),
)
CONV6_FALL2011 = replace(
    CONV6_FALL2009,
    source="the authors' program, net 146 on Fall 2011, starting from its convolutions on Fall 2009",
    schedule=Steps(after=(6,), epochs=8),
    load_patterns=("conv*",),
)
CONV6_2012 = replace(
    AUTHORS,
    source="the authors' program, net 146 fine-tuned on ILSVRC-2012",
    schedule=Steps(after=(22, 42), epochs=54),
    lr=0.001,
    # The program raised the learning rate of fc8 at batch 300 of the first epoch; here from its beginning.
    lr_changes=(
        LrChange(1, "conv1.*", 0.1),
        LrChange(1, "fc8.*", 10.0),
        LrChange(7, "conv1.*", 0.0),
        LrChange(10, "fc8.*", 0.1),
    ),
    colour_until=37,
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

# The nets of Sec. 3.3. Weight decay and the schedule are ours.
CIFAR_LOCAL = replace(
    CIFAR_FOUR_LAYERS,
    source="the authors' program, the 13% and 11% nets",
    initialisation=Initialisation(std_of=(("conv1", 0.0001), ("local3", 0.04), ("local4", 0.04)), ones=()),
    augmentation=Augmentation(mean_of_patch=False),
    schedule=Steps(after=(100, 110), epochs=120),
    weight_decay=0.004,
)

RECIPES = {recipe.name: recipe for recipe in (AUTHORS, PAPER)}
