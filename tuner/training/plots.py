"""Plots of a training run as PNG files, updated during the run: learning curves, confusion matrix, worst readings."""

from __future__ import annotations

import io
import logging
import math
import time
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tuner.data.generation.fonts import font_characters, font_files, pinned_font_file, system_font_folders
from tuner.data.pixel_cache import CachedSplit
from tuner.data.vocabulary import Vocabulary
from tuner.training.checkpoints import DamagedCheckpointError, load_checkpoint
from tuner.training.confusion_counts import Counts, count_confusions
from tuner.training.history import METRIC_NAMES, EpochMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

LEARNING_CURVES = "learning_curves.png"
CONFUSION_MATRIX = "confusion_matrix.png"
WORST_READINGS = "worst_readings.png"

Plots = Mapping[str, bytes]
"""The bytes of PNG files, keyed by the file names above."""

INK, FAINT, GRID = "#1e293b", "#64748b", "#e2e8f0"
BLUE, ORANGE, GREEN, RED = "#2563eb", "#d97706", "#16a34a", "#dc2626"

_DPI = 100
# Without a handler, Python prints matplotlib's warnings, for example about a read-only home folder.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())


def new_figure(width_px: int, height_px: int) -> Figure:
    """Create an empty figure of this size in pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI)


def figure_image(figure: Figure) -> Image.Image:
    """Render a figure as an RGB image; equal figures give equal pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels).convert("RGB")


def to_png(image: Image.Image) -> bytes:
    """Encode an image as PNG with a palette of 256 colours, which makes the file of a plot a third of its RGB size."""
    buffer = io.BytesIO()
    image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE).save(buffer, "PNG")
    return buffer.getvalue()


_MAX_CODE_POINTS = 3


def draw_text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size_px: int, color: str, anchor: str = "lm"
) -> None:
    """Write a text on an image; if no font has all of its characters, write their code points."""
    visible = frozenset(character for character in text if unicodedata.category(character) != "Cf")
    font = None if text.isspace() else _font(visible, size_px)
    if font is None:
        text = " ".join(f"U+{ord(character):04X}" for character in text[:_MAX_CODE_POINTS])
        font = _opened(pinned_font_file(), size_px)
    draw.text(at, text, font=font, fill=color, anchor=anchor)


def _font(characters: frozenset[str], size_px: int) -> ImageFont.FreeTypeFont | None:
    """Return the first font that has all characters; None if there is none."""
    files = (file for file in _font_files() if characters <= font_characters(file))
    return next(filter(None, (_opened(file, size_px) for file in files)), None)


@cache
def _font_files() -> tuple[Path, ...]:
    """Return the pinned font, the fonts of matplotlib, and the installed fonts."""
    import matplotlib

    folders = [Path(matplotlib.get_data_path(), "fonts", "ttf"), *system_font_folders()]
    return pinned_font_file(), *font_files(folders)


@cache
def _opened(file: Path, size_px: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(str(file), size_px)
    except OSError:  # for example a font of bitmaps in other sizes
        return None


_LOSSES = {"train_loss": ("train", ORANGE), "val_loss": ("validation", BLUE)}
_ACCURACIES = {
    "train_char_accuracy": ("train char", ORANGE),
    "val_char_accuracy": ("validation char", BLUE),
    "val_seq_accuracy": ("validation seq", GREEN),
}
# With more epochs, markers would hide the line.
_MAX_MARKERS = 60


def draw_learning_curves(metrics: Mapping[str, Sequence[float]], best_epoch: int | None) -> bytes:
    """Draw loss and accuracies over the epochs, and mark the best epoch.

    Args:
        metrics: The values per epoch, keyed by metric name, for at least one epoch. Values that are not finite are
            omitted.
        best_epoch: Epoch of the best checkpoint, counted from 1; None before the first such checkpoint.

    Returns:
        A PNG of 960 x 360 pixels.
    """
    figure = new_figure(960, 360)
    losses, accuracies = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.13, top=0.9, wspace=0.18)
    for axes, title, curves in ((losses, "loss", _LOSSES), (accuracies, "accuracy", _ACCURACIES)):
        for name, (label, color) in curves.items():
            _draw_curve(axes, metrics[name], label, color)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=FAINT, linestyle="--", linewidth=1, label=f"best: {best_epoch}")
        _set_up(axes, title, len(metrics["train_loss"]))
    accuracies.set_ylim(0, 1)
    losses.set_ylim(bottom=0)
    return to_png(figure_image(figure))


def _draw_curve(axes: Axes, values: Sequence[float], label: str, color: str) -> None:
    epochs = [epoch for epoch, value in enumerate(values, start=1) if math.isfinite(value)]
    marker = "." if len(epochs) <= _MAX_MARKERS else ""
    # Not clipped, because an accuracy of 1 is on the edge of the axes.
    axes.plot(epochs, [values[epoch - 1] for epoch in epochs], color=color, marker=marker, label=label, clip_on=False)


def _set_up(axes: Axes, title: str, epochs: int) -> None:
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel(title, color=INK)
    axes.set_xlim(0.5, epochs + 0.5)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.tick_params(colors=FAINT, length=0)
    axes.grid(axis="y", color=GRID)
    axes.spines[:].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize="small", columnspacing=1)


CHARACTERS_SHOWN = 20  # in the plot; more would be unreadable
_EMPTY = "#f1f5f9"
# Exponent of the colour scale for confusions, so that 1 % is visible.
_STRENGTH = 0.35
_LEFT, _TOP, _SIZE = 0.14, 0.14, 0.84  # of the table, as fractions of the figure


def draw_confusion_matrix(counts: Counts, characters: Sequence[str]) -> bytes:
    """Draw the confusion matrix of K characters: all, or the `CHARACTERS_SHOWN` with the most errors.

    Args:
        counts: ``(K + 1, K + 1)``: rows are true characters, then insertions; columns are read characters, then missed
            ones. The last cell is 0 and stays empty.
        characters: The K characters.

    Returns:
        A square PNG. The colour of a cell shows its fraction of the row's sum. If characters are left out, the row and
        the column "other" count their confusions, but not their correct readings.
    """
    from matplotlib.colors import to_rgb

    shown = most_confused(counts)
    names = [characters[index] for index in shown]
    correct_others = counts.trace() - counts.diagonal()[shown].sum()
    counts = _grouped(counts, shown)
    totals, size = counts.sum(1, keepdims=True), len(counts)
    if len(shown) < len(characters):
        names.append("other")
        counts[-2, -2] -= correct_others
    is_correct = np.diag(np.arange(size) < len(shown))
    fractions = counts / np.maximum(totals, 1)
    strength = np.where(is_correct, fractions, fractions**_STRENGTH)
    colors = 1 - (1 - np.where(is_correct[..., None], to_rgb(BLUE), to_rgb(RED))) * strength[..., None]
    colors[counts == 0] = to_rgb(_EMPTY)
    colors[-1, -1] = 1.0

    width = max(580, 40 * size)
    figure = new_figure(width, width)
    axes = figure.add_axes((_LEFT, 1 - _TOP - _SIZE, _SIZE, _SIZE))
    axes.pcolormesh(colors, edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    for true, read in np.argwhere(counts):
        count = counts[true, read]
        text = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
        color = "white" if strength[true, read] > 0.55 else INK
        axes.text(read + 0.5, true + 0.5, text, color=color, ha="center", va="center")
    axes.set_axis_off()
    image = figure_image(figure)
    draw = ImageDraw.Draw(image)
    left, top, cell = _LEFT * width, _TOP * width, _SIZE * width / size
    for number, (true_name, read_name) in enumerate(zip([*names, "none"], [*names, "missed"], strict=True)):
        middle = (number + 0.5) * cell
        size_px = 22 if number < len(shown) else min(12, int(cell / 3.3))
        draw_text(draw, (left + middle, top - 18), read_name, size_px, INK, "mm")
        draw_text(draw, (left - 8, top + middle), true_name, size_px, INK, "rm")
    draw_text(draw, (left + _SIZE * width / 2, 14), "read", 14, FAINT, "mm")
    draw_text(draw, (8, top + _SIZE * width / 2), "true", 14, FAINT, "lm")
    return to_png(image)


def most_confused(counts: Counts) -> list[int]:
    """Return the indices of the `CHARACTERS_SHOWN` characters with the most errors, in the order of the vocabulary."""
    errors = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    return sorted(np.argsort(-errors[:-1], kind="stable")[:CHARACTERS_SHOWN].tolist())


def _grouped(counts: Counts, shown: Sequence[int]) -> Counts:
    """Return the rows and columns of `shown`, the sum of the other characters if there are any, and the last one."""
    size = len(shown) + 1 + (len(shown) < len(counts) - 1)
    group = np.full(len(counts), size - 2)
    group[list(shown)], group[-1] = np.arange(len(shown)), size - 1
    grouped = np.zeros((size, size), np.int64)
    np.add.at(grouped, (group[:, None], group[None, :]), counts)
    return grouped


READINGS_SHOWN = 24
_COLUMNS = 4
_CARD_WIDTH, _CARD_HEIGHT, _MARGIN, _TITLE = 232, 132, 12, 40

Rows = npt.NDArray[np.integer]


def read_wrong(rows: Rows, labels: Rows, vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    """Return a mask ``(N,)`` of the readings ``(N, L)`` that differ from their labels ``(N, L)``."""
    texts, truths = (map(vocabulary.decode, values.tolist()) for values in (rows, labels))
    return np.fromiter((text != truth for text, truth in zip(texts, truths, strict=True)), np.bool_, len(rows))


def worst_first(wrong: npt.NDArray[np.bool_], confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the indices of the worst readings, at most `READINGS_SHOWN`.

    Wrong readings come first, in order of falling confidence; then correct readings, in order of rising confidence.

    Args:
        wrong: Mask of the wrong readings, ``(N,)``.
        confidence: Confidence of each reading, ``(N,)``, 0 to 1.
    """
    # `lexsort` is stable: readings with equal confidence keep their order.
    return np.lexsort((np.where(wrong, -confidence, confidence), ~wrong))[:READINGS_SHOWN]


def draw_readings(
    images: npt.NDArray[np.uint8],
    rows: Rows,
    labels: Rows,
    confidence: Sequence[float],
    title: str,
    vocabulary: Vocabulary,
) -> bytes:
    """Draw images, each with its label, reading and confidence.

    Args:
        images: Grey, 0 black to 255 white, ``(N, 64, 128)``.
        rows: Predicted label sequences, ``(N, L)``.
        labels: Ground-truth label sequences, ``(N, L)``.
        confidence: Confidence of each reading, 0 to 1, ``(N,)``.
        title: Title of the sheet.
        vocabulary: The vocabulary of the label sequences.

    Returns:
        A PNG with four images per row.
    """
    lines = -(-len(images) // _COLUMNS)
    size = (_MARGIN + _COLUMNS * (_CARD_WIDTH + _MARGIN), _TITLE + lines * (_CARD_HEIGHT + _MARGIN))
    sheet = Image.new("RGB", size, "white")
    draw_text(ImageDraw.Draw(sheet), (_MARGIN, _TITLE // 2), title, 15, INK)
    for number, (image, row, label) in enumerate(zip(images, rows, labels, strict=True)):
        truth, reading = (vocabulary.decode(classes.tolist()) for classes in (label, row))
        card = _draw_card(image, truth, reading, confidence[number])
        line, column = divmod(number, _COLUMNS)
        sheet.paste(card, (_MARGIN + column * (_CARD_WIDTH + _MARGIN), _TITLE + line * (_CARD_HEIGHT + _MARGIN)))
    return to_png(sheet)


def _draw_card(image: npt.NDArray[np.uint8], truth: str, reading: str, confidence: float) -> Image.Image:
    card = Image.new("RGB", (_CARD_WIDTH, _CARD_HEIGHT), "white")
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, _CARD_WIDTH - 1, _CARD_HEIGHT - 1), outline=GRID)
    card.paste(Image.fromarray(image), ((_CARD_WIDTH - image.shape[1]) // 2, 6))
    verdict = GREEN if truth == reading else RED
    for y, name, text, color in ((88, "true", truth, FAINT), (114, "read", reading, verdict)):
        draw_text(draw, (10, y), name, 12, FAINT)
        draw_text(draw, (48, y), text or "(nothing)", _text_size(text), color)
    draw_text(draw, (_CARD_WIDTH - 10, 114), f"{confidence:.3f}", 12, FAINT, "rm")
    return card


def _text_size(text: str) -> int:
    """Return the size in pixels at which a text of up to 24 characters fits beside its confidence."""
    return 13 if not text or len(text) > 12 else 19


# Maximum fraction of the time of a training run that is spent on plots during the run.
_FRACTION = 0.005
# Assumed duration of the first plots, which also import matplotlib. A run under 100 s is plotted only at its end.
_FIRST_SECONDS = 0.5


class PlotUpdates:
    """Draws the plots of a training run, and limits the time spent on plots during the run."""

    def __init__(self, validation: CachedSplit, best: Path) -> None:
        """Set the validation images and the path of the best checkpoint; the time of the run starts now."""
        self._validation = validation
        self._best = best
        self._started = time.monotonic()
        self._spent_s = _FIRST_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether the plots so far took no more than the maximum fraction of the time since the start of the run."""
        return self._spent_s <= _FRACTION * (time.monotonic() - self._started)

    def draw(self, history: Sequence[EpochMetrics]) -> Plots:
        """Draw all plots for which data is available.

        Args:
            history: The finished epochs.

        Returns:
            `LEARNING_CURVES` if an epoch has finished; `CONFUSION_MATRIX` and `WORST_READINGS` of the best epoch if its
            checkpoint is intact. Empty if drawing fails, because then the error is only logged.
        """
        started = time.monotonic()
        try:
            return self._draw(history)
        except Exception:  # for example a checkpoint without readings
            log.exception("the plots cannot be drawn; the training continues without them")
            return {}
        finally:
            self._spent_s += time.monotonic() - started

    def _draw(self, history: Sequence[EpochMetrics]) -> Plots:
        if not history:
            return {}
        metrics = {name: [epoch.value(name) for epoch in history] for name in METRIC_NAMES}
        try:
            state = load_checkpoint(self._best)
        except (FileNotFoundError, DamagedCheckpointError) as error:
            log.warning("the best checkpoint cannot be loaded (%s); plotting only the learning curves", error)
            return {LEARNING_CURVES: draw_learning_curves(metrics, None)}
        best_epoch = state["metrics"]["epoch"]
        rows, confidence = (state["validation"][name].numpy() for name in ("rows", "confidence"))
        labels, vocabulary = self._validation.labels, self._validation.vocabulary
        wrong = read_wrong(rows, labels, vocabulary)
        worst = worst_first(wrong, confidence)
        title = f"Worst readings, epoch {best_epoch}: {wrong.sum():,} of {len(wrong):,} validation images are misread"
        return {
            LEARNING_CURVES: draw_learning_curves(metrics, best_epoch),
            CONFUSION_MATRIX: draw_confusion_matrix(
                count_confusions(rows, labels, vocabulary.size), vocabulary.characters
            ),
            WORST_READINGS: draw_readings(
                self._validation.images[worst], rows[worst], labels[worst], confidence[worst], title, vocabulary
            ),
        }
