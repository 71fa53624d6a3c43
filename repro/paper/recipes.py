"""How the nets are trained: the text's recipe and that of the authors' own 2012 program.

Every constant stands here once, with the section it comes from. "program" marks what only the authors'
released program says, "ours" what neither says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Initialisation:
    """Weights ~ N(0, std²), `std_of` naming the exceptions; biases 1 in the layers of `ones`, else 0 (Sec. 5).

    `std` None stands for 1/√n in a layer whose neurons have n inputs each, the later custom.
    """

    std: float | None = 0.01
    std_of: tuple[tuple[str, float], ...] = ()
    ones: tuple[str, ...] = ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")

    def weight_std(self, layer: str, inputs: int) -> float:
        """The standard deviation of the initial weights of `layer`, whose neurons have so many inputs."""
        std = dict(self.std_of).get(layer, self.std)
        return inputs**-0.5 if std is None else std

    def bias(self, layer: str) -> float:
        """The initial bias of `layer`."""
        return 1.0 if layer in self.ones else 0.0


@dataclass(frozen=True)
class Colour:
    """Noise along the principal components of the training set's RGB values, once per image (Sec. 4.1).

    The image gets Σ_i p_i · α_i · s_i with α_i ~ N(0, std²). `spread` says what s_i is: "eigenvalue", the
    text, on values from 0 to 1; or "deviation", the program, its square root on values from 0 to 255. The
    noisy image is divided by `divide_by`.
    """

    spread: str
    std: float = 0.1
    divide_by: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image on its way to the net (Sec. 4.1).

    `crops`: a random patch rather than the centre patch; `mirror`: mirrored in half of all uses.
    `draws_shared_by`: how many consecutive images of an epoch share one offset and one mirror decision.
    `mean_of_patch`: subtract the mean image at the patch's own place, rather than its centre patch.
    `inputs_divided_by`: what the net sees, in training and in testing, is that much smaller than values of 0–255.
    """

    crops: bool = True
    mirror: bool = True
    colour: Colour | None = None
    draws_shared_by: int = 1
    mean_of_patch: bool = True
    inputs_divided_by: float = 1.0


@dataclass(frozen=True)
class Plateau:
    """Divide the rate by 10 when the validation error stops improving, `drops` times; then stop (Sec. 5).

    "Stops improving" is ours: no new best top-1 error for `patience` epochs, counted only once the net has
    left chance, or the first epochs of a slow start would use up the drops.
    """

    drops: int = 3
    patience: int = 5
    epochs: int = 90


@dataclass(frozen=True)
class Steps:
    """Divide the rate by 10 after each epoch of `after`; stop after `epochs` (program, the run of 2010)."""

    after: tuple[int, ...] = (23, 51, 78)
    epochs: int = 93


@dataclass(frozen=True)
class RateChange:
    """From `epoch` on (counted from 1), the rate of the parameters that match `pattern` is `factor` times as high.

    `pattern` is a shell pattern over names such as "conv1.weight"; changes multiply with each other.
    """

    epoch: int
    pattern: str
    factor: float


@dataclass(frozen=True)
class Recipe:
    """Everything about a training run but the net, the data, the scale and the seed.

    `bias_lr_ratio` is the initial rate of the biases over that of the weights. `bias_follows`: the biases'
    rate is divided when the schedule divides the weights'. `bias_decay`: weight decay acts on biases too.
    `rate_changes` come on top. `colour_until`: the last epoch with colour noise, None for all of them.
    `carries`: shell patterns of the parameters that a run takes over when it begins from another.
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
    bias_follows: bool = True
    bias_decay: bool = True
    rate_changes: tuple[RateChange, ...] = ()
    colour_until: int | None = None
    carries: tuple[str, ...] = ("*",)


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
    bias_follows=False,
    bias_decay=False,
    # What the program's operator changed by hand towards the end. When the biases' rate was lowered is not
    # recorded: ours.
    rate_changes=(RateChange(67, "*.bias", 0.1), RateChange(67, "conv1.*", 0.1), RateChange(72, "conv1.*", 0.0)),
    colour_until=66,
)

# The three stages of the authors' net 146, "1 CNN*" of Table 2. How long the first lasted is not recorded: ours.
CONV6_FALL2009 = replace(
    AUTHORS,
    source="the authors' program, net 146 on Fall 2009, begun from net 145's convolutions",
    schedule=Steps(after=(12, 18), epochs=24),
    rate_changes=(RateChange(1, "conv[1-5].*", 0.1),),
    colour_until=None,
    carries=("conv[1-5].*",),
)
CONV6_FALL2011 = replace(
    CONV6_FALL2009,
    source="the authors' program, net 146 on Fall 2011, begun from its convolutions on Fall 2009",
    schedule=Steps(after=(6,), epochs=8),
    carries=("conv*",),
)
CONV6_2012 = replace(
    AUTHORS,
    source="the authors' program, net 146 fine-tuned on ILSVRC-2012",
    schedule=Steps(after=(22, 42), epochs=54),
    lr=0.001,
    # The program raised fc8's rate at batch 300 of the first epoch; here from its beginning.
    rate_changes=(
        RateChange(1, "conv1.*", 0.1),
        RateChange(1, "fc8.*", 10.0),
        RateChange(7, "conv1.*", 0.0),
        RateChange(10, "fc8.*", 0.1),
    ),
    colour_until=37,
    carries=("conv*", "fc6.*", "fc7.*"),
)

# Figure 1: "no regularisation of any kind was employed"; the rate is the user's to choose, as the paper's was.
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

# Ours: how much of Figure 1's ratio hangs on where the nets begin. Signals keep their size on the way up, and tanh
# is not saturated from the start.
CIFAR_FAN_IN = replace(
    CIFAR_FOUR_LAYERS,
    name="fan-in",
    source="not in the paper: initialisation by fan-in, on inputs of unit size",
    initialisation=Initialisation(std=None, ones=()),
    augmentation=replace(CIFAR_FOUR_LAYERS.augmentation, inputs_divided_by=50.0),
    lr=0.01,
)

# Sec. 3.3's nets. Weight decay and when the rate drops are ours.
CIFAR_LOCAL = replace(
    CIFAR_FOUR_LAYERS,
    source="the authors' program, the 13% and 11% nets",
    initialisation=Initialisation(std_of=(("conv1", 0.0001), ("local3", 0.04), ("local4", 0.04)), ones=()),
    augmentation=Augmentation(mean_of_patch=False),
    schedule=Steps(after=(100, 110), epochs=120),
    weight_decay=0.004,
)

RECIPES = {recipe.name: recipe for recipe in (AUTHORS, PAPER)}
