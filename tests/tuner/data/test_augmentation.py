from itertools import combinations

import pytest
import torch
from torch.nn import functional as F

from tuner.data.augmentation import (
    MAX_BEND_PX,
    MAX_BLUR,
    MAX_NOISE,
    Distortions,
    _add_noise,
    _apply_tone_curves,
    _blur,
    _grid,
    _warp,
    augment,
    distorted_copies,
    normalise,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def distortions_of(generator, count=12):
    return Distortions.random(count, (64, 128), generator, torch.device("cpu"))


@pytest.fixture
def images():
    """Twelve images of a dark bar on light paper."""
    images = torch.full((12, 1, 64, 128), 0.9)
    for number, image in enumerate(images):
        image[0, 24:40, 20 + 4 * number : 28 + 4 * number] = 0.1
    return images


def test_augmentation_keeps_shape_type_and_nearly_the_range(images):
    distorted = augment(images, distortions_of(seeded()))
    assert distorted.shape == images.shape
    assert distorted.dtype == images.dtype
    assert distorted.isfinite().all()
    # Only noise exceeds 0 to 1, by a few times MAX_NOISE standard deviations of the image.
    assert -0.5 < distorted.min() < distorted.max() < 1.5


def test_every_image_gets_another_distortion(images):
    same = images[:1].expand(12, -1, -1, -1)
    distorted = augment(same, distortions_of(seeded())).flatten(1)
    distances = torch.cdist(distorted, distorted) + torch.eye(12)
    assert distances.min() > 0.1
    assert (distorted - same.flatten(1)).abs().amax(1).min() > 0.05


def test_tta_copies_differ_slightly_and_do_not_depend_on_the_batch(images):
    copies = torch.stack(list(distorted_copies(images)))
    assert copies.shape == (3, *images.shape)
    for number in (0, 7):
        single = torch.stack(list(distorted_copies(images[number : number + 1])))
        assert torch.equal(single, copies[:, number : number + 1])
    changed = [(one - other).abs().mean() for one, other in combinations([images, *copies], 2)]
    assert 0.002 < min(changed) < max(changed) < 0.05


def test_augmentation_only_depends_on_the_generator(images):
    torch.manual_seed(1)
    one = augment(images, distortions_of(seeded(7)))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(one, augment(images, distortions_of(seeded(7))))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one, augment(images, distortions_of(seeded(8))))


def test_slice_of_distortions_applies_to_the_slice_of_images(images):
    distortions = distortions_of(seeded(), count=36)
    parts = [augment(images, distortions[start : start + 12]) for start in (0, 12, 24)]
    assert torch.equal(parts[1], augment(images, distortions[12:24]))
    assert all(not torch.equal(parts[0], part) for part in parts[1:])
    assert len(distortions[30:42].affine_matrices) == 6


def test_tone_curves_keep_black_white_and_the_order_of_tones():
    ramp = torch.linspace(0, 1, 128).expand(3, 1, 64, 128).clone()
    curved, coefficients = ramp.clone(), torch.tensor([-0.6, 0.0, 0.6])
    _apply_tone_curves(curved, coefficients)
    assert torch.allclose(curved, ramp + coefficients.view(3, 1, 1, 1) * ramp * (1 - ramp), atol=1e-6)
    assert (curved.diff(dim=3) > 0).all()


def test_ink_stays_in_the_image(images):
    # Labels fill most of an image, so a large shift would cut off ink.
    dark = (augment(images, distortions_of(seeded())) < 0.5).flatten(1).float().sum(1)
    assert (dark / (16 * 8)).min() > 0.6
    assert (dark / (16 * 8)).max() < 1.6


def test_nearly_all_labels_that_fill_the_image_keep_their_outer_strokes():
    label = torch.zeros(2, 1, 64, 128)
    label[0, :, 8:28, 2:8] = label[1, :, 36:56, 120:126] = 1  # the first stroke of a high label, the last of a low one
    ink = _warped(label.repeat(500, 1, 1, 1)).sum((1, 2, 3)) / (20 * 6)
    assert (ink > 0.5).float().mean() > 0.98


def test_few_images_are_as_slanted_as_italics():
    line = torch.zeros(1, 1, 64, 128)
    line[:, :, 12:52, 63:65] = 1
    warped = _warped(line.expand(1000, -1, -1, -1))[:, 0]
    centres = (warped * torch.arange(128.0)).sum(2) / warped.sum(2)
    slants = (centres[:, 22] - centres[:, 42]).abs() / 20
    assert slants.median() < 0.1
    assert slants.quantile(0.95) > 0.2
    assert slants.max() < 0.5


def test_bends_change_the_distances_between_strokes_by_a_few_pixels():
    strokes = torch.zeros(300, 1, 64, 128)
    strokes[:, :, :, 8::16] = 1
    upright = torch.eye(2, 3).expand(300, 2, 3)
    bent = _warp(strokes, upright, distortions_of(seeded(), 300).bends)[:, 0, 32].view(300, 8, 16)
    positions = (bent * torch.arange(16.0)).sum(2) / bent.sum(2)
    assert (positions - 8).abs().max() < 2 * MAX_BEND_PX + 0.5  # 0.5 for the width of a stroke
    gaps = positions.diff(dim=1)
    assert gaps.abs().max() > 1
    assert gaps.std(1).median() > 0.2


def test_bends_from_top_to_bottom_differ_from_those_from_left_to_right():
    upright = torch.eye(2, 3).expand(300, 2, 3)
    grid = _grid(upright, torch.zeros(300, 1, 64, 64), distortions_of(seeded(), 300).bends)
    moved = grid - _grid(upright, torch.zeros(300, 1, 64, 64))
    across, down = moved[:, 32, :, 0] - moved[:, 32, :1, 0], moved[:, :, 32, 0] - moved[:, :1, 32, 0]
    assert across.abs().max(1).values.median() > 0.005
    assert down.abs().max(1).values.median() > 0.005
    assert (across - down).abs().max(1).values.median() > 0.005


def test_sampling_grid_of_an_image_does_not_depend_on_its_batch(images):
    distortions = distortions_of(seeded())
    whole = _grid(distortions.affine_matrices, images, distortions.bends)
    for number in range(12):
        one = distortions[number : number + 1]
        assert torch.equal(_grid(one.affine_matrices, images[:1], one.bends), whole[number : number + 1])


@pytest.mark.parametrize("offset", [0.0, 0.4, 0.9999])
@pytest.mark.parametrize("count", [1, 12, 700])
def test_noise_is_white_and_proportional_to_the_contrast_of_its_image(images, offset, count):
    images = images[:1] * torch.linspace(0.5, 1, count).view(-1, 1, 1, 1)
    noise = images.clone()
    _add_noise(noise, torch.full((count,), MAX_NOISE), offset)
    noise = (noise - images).flatten(1)
    assert torch.allclose(noise.std(1) / images.flatten(1).std(1), torch.full((count,), MAX_NOISE), rtol=0.05)
    between = torch.corrcoef(noise).view(count, count) - torch.eye(count)
    assert between.abs().max() < 0.07
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean(1) / noise.var(1)
    assert neighbours.abs().max() < 0.07


def test_blur_keeps_flat_paper_and_softens_edges(images):
    blurred = images.clone()
    _blur(blurred, torch.full((12,), MAX_BLUR))
    assert torch.allclose(blurred[:, :, :20], images[:, :, :20])
    rows, before = blurred[0, 0, 32, 18:22], images[0, 0, 32, 18:22]
    assert torch.allclose(rows - before, torch.tensor([0.0, -0.8, 0.8, 0.0]) * MAX_BLUR / 3, atol=1e-6)


def test_sampling_grid_equals_that_of_pytorch(images):
    matrices = torch.rand((12, 2, 3), generator=seeded())
    expected = F.affine_grid(matrices, list(images.shape), align_corners=False)
    assert torch.allclose(_grid(matrices, images), expected, atol=1e-6)


def _warped(images):
    distortions = distortions_of(seeded(), len(images))
    return _warp(images, distortions.affine_matrices, distortions.bends)


def _scaled(images):
    return 0.2 * images + 0.3


@pytest.mark.parametrize("change", [lambda images: images, _scaled], ids=["as it is", "paler"])
def test_normalised_images_have_mean_zero_and_deviation_one(images, change):
    normal = normalise(change(images))
    assert torch.allclose(normal.mean((1, 2, 3)), torch.zeros(12), atol=1e-4)
    assert torch.allclose(normal.std((1, 2, 3)), torch.ones(12), atol=1e-3)


def test_normalised_image_without_contrast_has_no_nan():
    assert normalise(torch.ones(1, 1, 64, 128)).abs().max() < 0.1


def test_augmentation_does_not_change_its_input(images):
    before = images.clone()
    augment(images, distortions_of(seeded()))
    assert torch.equal(images, before)
