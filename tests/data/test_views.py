"""Training and test views against slices computed in NumPy."""

import numpy as np
import pytest
import torch

from repro.compiled_loops import LoopsUnavailable
from repro.data import patches
from repro.data.sampling import draw_epoch
from repro.data.views import Views, colour_basis
from repro.paper.recipes import AUTHORS, PAPER, Augmentation, Colour, Recipe

SIZE, CROP = 16, 12
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, SIZE, SIZE, 3), dtype=np.uint8)
MEAN = RNG.uniform(90, 150, (SIZE, SIZE, 3)).astype(np.float32)
COVARIANCE = np.cov(RNG.normal(0, 60, (3, 500)))


def views(augmentation: Augmentation) -> Views:
    return Views(MEAN, COVARIANCE, CROP, augmentation, torch.device("cpu"))


def by_hand(image: np.ndarray, top: int, left: int, mirror: bool, mean_of_patch: bool) -> np.ndarray:
    """Return one view, float32 [3, CROP, CROP], with the mean subtracted before the crop, or its centre after it."""
    region = np.s_[top : top + CROP, left : left + CROP]
    values = (image.astype(np.float32) - MEAN if mean_of_patch else image.astype(np.float32))[region]
    values = values[:, ::-1] if mirror else values
    return (values if mean_of_patch else values - MEAN[2:14, 2:14]).transpose(2, 0, 1)


@pytest.mark.parametrize("mean_of_patch", [True, False])
def test_training_views_are_slices(mean_of_patch: bool) -> None:
    augmentation = Augmentation(mean_of_patch=mean_of_patch)
    draws = draw_epoch(0, 1, 10, SIZE - CROP, augmentation)
    result = views(augmentation).augment(IMAGES, draws).numpy()
    for i in range(10):
        position = (int(draws.top[i]), int(draws.left[i]), bool(draws.mirror[i]))
        np.testing.assert_array_equal(result[i], by_hand(IMAGES[i], *position, mean_of_patch))


@pytest.mark.parametrize("mean_of_patch", [True, False])
def test_ten_views_are_four_corners_the_centre_and_their_mirror_images(mean_of_patch: bool) -> None:
    ten = torch.stack(list(views(Augmentation(mean_of_patch=mean_of_patch)).test_views(IMAGES, 10)), dim=1).numpy()
    for i, image in enumerate(IMAGES):
        expected = [
            by_hand(image, top, left, mirror, mean_of_patch)
            for top, left in ((2, 2), (0, 0), (0, 4), (4, 0), (4, 4))
            for mirror in (False, True)
        ]
        np.testing.assert_array_equal(ten[i], expected)


def test_one_view_is_the_centre_and_the_first_of_the_ten() -> None:
    cutter = views(AUTHORS.augmentation)
    (one,) = cutter.test_views(IMAGES, 1)
    assert torch.equal(one, next(iter(cutter.test_views(IMAGES, 10))))
    assert one.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("recipe", [PAPER, AUTHORS])
def test_colour_noise_is_one_shift_for_the_whole_image(recipe) -> None:
    augmentation = recipe.augmentation
    draws = draw_epoch(0, 1, 10, SIZE - CROP, augmentation)
    cutter = views(augmentation)
    with_noise = cutter.augment(IMAGES, draws) * augmentation.colour.divide_by
    shift = with_noise - cutter.augment(IMAGES, draws, colour=False)
    expected = draws.alpha @ colour_basis(COVARIANCE, augmentation.colour).numpy().T
    np.testing.assert_allclose(shift.numpy(), np.broadcast_to(expected[:, :, None, None], shift.shape), atol=1e-3)


def test_colour_noise_for_the_statistics_of_imagenet() -> None:
    """On the ImageNet of the authors: 12.2 grey levels with the program, 5.8 with the text on values 0 to 1."""
    covariance = np.diag(np.square([121.78, 37.09, 19.72]))
    program = colour_basis(covariance, AUTHORS.augmentation.colour).norm(dim=0).sort(descending=True).values
    text = colour_basis(covariance, PAPER.augmentation.colour).norm(dim=0).sort(descending=True).values
    np.testing.assert_allclose(program, [12.178, 3.709, 1.972], rtol=1e-5)
    np.testing.assert_allclose(text[0], 5.816, rtol=1e-3)


def test_colour_noise_lies_along_the_principal_components() -> None:
    basis = colour_basis(COVARIANCE, Colour("deviation", std=1.0)).double().numpy()
    np.testing.assert_allclose(basis @ basis.T, COVARIANCE, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("recipe", [AUTHORS, PAPER], ids=["authors", "paper"])
def test_training_views_on_another_device_are_bit_identical(recipe: Recipe) -> None:
    cutter = views(recipe.augmentation)
    draws = draw_epoch(1, 2, 10, SIZE - CROP, recipe.augmentation)
    expected = cutter.augment(IMAGES, draws)
    cutter.device = torch.device("meta")  # not a CPU: selects the torch operators
    assert torch.equal(cutter.augment(IMAGES, draws), expected)


@pytest.mark.parametrize("recipe", [AUTHORS, PAPER], ids=["authors", "paper"])
def test_training_views_without_compiled_loops_are_bit_identical(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise LoopsUnavailable

    draws = draw_epoch(1, 2, 10, SIZE - CROP, recipe.augmentation)
    expected = views(recipe.augmentation).augment(IMAGES, draws)
    monkeypatch.setattr(patches, "_cut", unavailable)
    assert torch.equal(views(recipe.augmentation).augment(IMAGES, draws), expected)


def test_a_batch_without_images_is_empty() -> None:
    draws = draw_epoch(0, 1, 10, SIZE - CROP, AUTHORS.augmentation)[:0]
    assert views(AUTHORS.augmentation).augment(IMAGES[:0], draws).shape == (0, 3, CROP, CROP)


def test_inputs_are_divided_in_training_and_test_views() -> None:
    plain, scaled = views(Augmentation()), views(Augmentation(inputs_divided_by=50.0))
    draws = draw_epoch(0, 1, 10, SIZE - CROP, Augmentation())
    torch.testing.assert_close(scaled.augment(IMAGES, draws), plain.augment(IMAGES, draws) / 50)
    for small, large in zip(scaled.test_views(IMAGES, 10), plain.test_views(IMAGES, 10), strict=True):
        torch.testing.assert_close(small, large / 50)
