"""Flagging of readings, with synthetic statistics and with a trained model."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tuner.data.generation.dataset import generate_dataset
from tuner.data.pixel_cache import open_pixel_cache
from tuner.data.vocabulary import Vocabulary
from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions
from tuner.inference.checkpoint_reader import reader_of_checkpoint
from tuner.inference.out_of_distribution import MIN_IMAGES, OODDetector

VOCABULARY = Vocabulary()

KHMER = "០១២៣"
ROW = VOCABULARY.encode(KHMER)


def validation(count=1000, *, correct=0.95, seed=0, **changes):
    """Return the validation data of a checkpoint: normally distributed image statistics, high confidence if correct."""
    random = np.random.default_rng(seed)
    labels = np.tile(ROW, (count, 1))
    rows = labels.copy()
    wrong = random.random(count) >= correct
    rows[wrong, 0] = 9
    confidence = np.where(wrong, random.uniform(0.1, 0.9, count), 1 - random.exponential(0.02, count).clip(0, 0.5))
    data = {
        "rows": rows,
        "labels": labels,
        "tta_confidence": confidence.astype(np.float32),
        "aspect_ratios": np.full(count, 2.0),
        "image_statistics": random.normal(0, [1, 2, 3], (count, 3)) + 5,
    }
    return {name: torch.from_numpy(values) for name, values in (data | changes).items()}


def flags(detector, **changes):
    typical = {"row": ROW, "confidence": 0.99, "aspect_ratio": 2.0, "statistics": np.full(3, 5.0)}
    return detector.flags(**typical | changes)


@pytest.fixture(scope="module")
def detector():
    return OODDetector.of(validation(), VOCABULARY)


def test_few_images_like_the_validation_images_are_flagged(detector):
    assert flags(detector) == ()
    similar = {name: values.numpy() for name, values in validation(seed=1, correct=1.0).items()}
    flagged = [
        bool(flags(detector, confidence=float(confidence), statistics=statistics))
        for confidence, statistics in zip(similar["tta_confidence"], similar["image_statistics"], strict=True)
    ]
    assert 0 < sum(flagged) <= 45


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"row": np.array([10, *[11] * 8])}, ["no character was read"]),
        ({"row": np.array([11, 10, *[11] * 7])}, ["no character was read"]),
        ({"row": np.arange(9)}, ["no end mark was read within 8 characters"]),
        (
            {"confidence": 0.3},
            ["the reading is not stable when the image is slightly distorted: mean confidence 0.30, "],
        ),
        ({"aspect_ratio": 2.49}, []),
        ({"aspect_ratio": 2.51}, ["aspect ratio 2.51 is outside 1.60 to 2.50"]),
        ({"aspect_ratio": 0.5}, ["aspect ratio 0.50 is outside 1.60 to 2.50"]),
        ({"statistics": np.array([5.0, 5.0, 25.0])}, ["the image is unlike the validation images"]),
        ({"statistics": np.array([5.0, 5.0, 14.5])}, []),  # slightly unusual
        ({"confidence": 0.93}, []),  # slightly uncertain
        (
            {"statistics": np.array([5.0, 5.0, 14.5]), "confidence": 0.93},
            ["low confidence under distortion combined with unusual image statistics"],
        ),
        ({"confidence": 0.0, "aspect_ratio": 9.0}, ["the reading is not stable when ", "aspect ratio 9.00 is"]),
    ],
)
def test_flags_name_every_reason(changes, expected, detector):
    reasons = flags(detector, **changes)
    assert [reason.startswith(start) for reason, start in zip(reasons, expected, strict=True)] == [True] * len(expected)


def test_limits_are_derived_from_the_validation_images():
    ratios = np.random.default_rng(0).uniform(1.0, 4.0, 1000)
    detector = OODDetector.of(validation(aspect_ratios=ratios), VOCABULARY)
    assert detector.aspect_ratios == pytest.approx((1.0 / 1.25, 4.0 * 1.25), rel=0.03)
    certain, unsure = (
        OODDetector.of(validation(tta_confidence=np.linspace(low, 1, 1000)), VOCABULARY) for low in (0.9, 0.2)
    )
    assert certain.min_confidence > 0.9 > 0.25 > unsure.min_confidence


@pytest.mark.parametrize(("count", "correct"), [(MIN_IMAGES // 2, 0.95), (1000, 0.01), (5, 0.0)])
def test_confidence_below_one_half_is_flagged_if_few_readings_are_correct(count, correct):
    detector = OODDetector.of(validation(count, correct=correct), VOCABULARY)
    assert flags(detector, confidence=0.51, statistics=np.full(3, 99.0)) == ()
    (reason,) = flags(detector, confidence=0.49)
    assert reason.endswith("mean confidence 0.49, below 0.50")


def test_confidence_below_one_half_is_flagged_before_the_training_has_finished():
    unfinished = validation()
    del unfinished["tta_confidence"]
    detector = OODDetector.of(unfinished, VOCABULARY)
    assert (flags(detector, confidence=0.51), len(flags(detector, confidence=0.49))) == ((), 1)


def test_equal_validation_images_are_not_flagged_because_of_rounding():
    detector = OODDetector.of(validation(image_statistics=np.full((1000, 3), 5.0)), VOCABULARY)
    assert flags(detector) == ()
    assert flags(detector, statistics=np.full(3, 9.0)) == ("the image is unlike the validation images",)


ROWS, COLUMNS = np.mgrid[0:64, 0:128]


def _white_noise(random):
    return random.normal(128, random.uniform(10, 80), (64, 128))


def _clouds(random):
    """Return noise whose power decreases with the square of the frequency, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(128)) + 1 / 128
    waves = np.fft.fft2(random.normal(size=(64, 128))) / frequency ** random.uniform(0.8, 1.5)
    tones = np.fft.ifft2(waves).real
    return (tones - tones.mean()) / tones.std() * random.uniform(15, 50) + 128


def _one_tone(random):
    return random.normal(random.uniform(0, 255), random.choice([0.1, 1, 3]), (64, 128))


def _gradient(random):
    angle = random.uniform(0, 2 * np.pi)
    return 128 + random.uniform(20, 120) * (COLUMNS / 128 * np.cos(angle) + ROWS / 64 * np.sin(angle))


def _stripes(random):
    angle, width = random.uniform(0, np.pi), random.uniform(3, 30)
    return 128 + 100 * np.sign(np.sin((COLUMNS * np.cos(angle) + ROWS * np.sin(angle)) * 2 * np.pi / width))


def _checkerboard(random):
    side = random.integers(3, 25)
    return 60 + 140.0 * ((COLUMNS // side + ROWS // side) % 2)


def _scribble(random):
    image = Image.new("L", (128, 64), int(random.uniform(180, 250)))
    for _ in range(random.integers(2, 8)):
        points = [tuple(point) for point in random.uniform([0, 0], [128, 64], (4, 2))]
        ImageDraw.Draw(image).line(points, fill=int(random.uniform(0, 130)), width=int(random.integers(1, 5)))
    return np.asarray(image, float)


IMAGES_WITHOUT_TEXT = {
    "white noise": _white_noise,
    "clouds": _clouds,
    "one tone": _one_tone,
    "gradient": _gradient,
    "stripes": _stripes,
    "checkerboard": _checkerboard,
    "scribble": _scribble,
}


@pytest.fixture(scope="module", params=["medium", "ctc"])
def trained(request, tmp_path_factory):
    """The reader of a built-in model that was trained to high accuracy, and the dataset's metadata file."""
    folder = tmp_path_factory.mktemp(request.param)
    metadata = generate_dataset(folder / "generated_data", samples=2500, test_samples=500)
    loss = "ctc" if request.param == "ctc" else "crossentropy"
    experiment = {
        "model": {"name": request.param},
        "data": {"metadata_path": str(metadata)},
        "training": {"device": "cpu", "loss_type": loss, "num_epochs": 18, "learning_rate": 0.002, "batch_size": 32},
        "scheduler": {"type": "cosine", "warmup_epochs": 1},
    }
    config = folder / "experiments.yaml"
    config.write_text(yaml.safe_dump({"experiments": {"one": experiment}}))
    HyperparameterTuner(
        str(config), options=RunOptions(output_dir=str(folder / "out"), results_file=str(folder / "results.json"))
    ).run_experiments()
    return reader_of_checkpoint(folder / "out" / "one" / "checkpoints" / "best.pt", device="cpu"), metadata


@pytest.mark.slow
class TestTrained:
    @pytest.mark.parametrize("kind", IMAGES_WITHOUT_TEXT)
    def test_images_without_text_are_flagged(self, kind, trained, tmp_path):
        random = np.random.default_rng(0)
        for number in range(100):
            tones = IMAGES_WITHOUT_TEXT[kind](random).clip(0, 255).astype(np.uint8)
            Image.fromarray(tones).resize((512, 256)).save(tmp_path / f"{number}.png")
        flagged = [bool(reading.flags) for reading in trained[0].read([tmp_path])]
        assert sum(flagged) >= 95

    def test_most_wrong_readings_of_an_unseen_design_are_flagged(self, trained, tmp_path):
        """The design has outlined digits: the difference of the brightest and the darkest tone near each pixel."""
        reader, metadata = trained
        test = open_pixel_cache(metadata, ["test"])["test"]
        for number, pixels in enumerate(test.images):
            image = Image.fromarray(pixels).resize((512, 256), Image.Resampling.BICUBIC)
            light, dark = (image.filter(kind(7)) for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
            ImageChops.invert(ImageChops.difference(light, dark)).save(tmp_path / f"{number:04d}.png")
        readings = reader.read([tmp_path])
        texts = map(VOCABULARY.decode, test.labels)
        is_correct = [reading.text == text for reading, text in zip(readings, texts, strict=True)]
        flagged = np.array([bool(reading.flags) for reading in readings])
        wrong = ~np.array(is_correct)
        assert wrong.sum() > 100
        assert flagged[wrong].mean() >= 0.8

    def test_few_correct_readings_of_the_test_split_are_flagged(self, trained):
        reader, metadata = trained
        test = open_pixel_cache(metadata, ["test"])["test"]
        readings = zip(reader.read(test.image_paths), test.labels, strict=True)
        flagged = [bool(reading.flags) for reading, label in readings if reading.text == VOCABULARY.decode(label)]
        assert len(flagged) > 400
        assert sum(flagged) / len(flagged) <= 0.05
