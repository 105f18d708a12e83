"""The metadata file of a generated dataset, written as text: 6,000 samples take milliseconds, not seconds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from tuner.data.rendering.backgrounds import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.rendering.sample import LONGEST_LABEL, Sample
from tuner.data.rendering.worker import image_filename
from tuner.data.vocabulary import CHARACTER_SET

_PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS_OF_YAML = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def format_metadata(folder: str, splits: Mapping[str, Sequence[Sample]]) -> str:
    """Return the text of `metadata.yaml`.

    Args:
        folder: What `image_path` starts with.
        splits: Samples by split, in number order.
    """
    parts = [_dataset_info(splits)]
    for split, samples in splits.items():
        parts.append(f"{split}:\n  samples:\n")
        parts += _sample_lines(folder, split, samples)
    return "".join(parts)


def _dataset_info(splits: Mapping[str, Sequence[Sample]]) -> str:
    fonts = sorted({sample.font for samples in splits.values() for sample in samples})
    lines = [
        "dataset_info:",
        f"  character_set: [{', '.join(_quoted(character) for character in CHARACTER_SET)}]",
        "  fonts_used:",
        *(f"  - {_quoted(font)}" for font in fonts),
        "  generated_by: text",
        f"  image_size: [{IMAGE_WIDTH_PX}, {IMAGE_HEIGHT_PX}]",
        f"  max_sequence_length: {LONGEST_LABEL}",
        f"  total_samples: {sum(map(len, splits.values()))}",
        *(f"  {split}_samples: {len(samples)}" for split, samples in splits.items()),
    ]
    return "\n".join(lines) + "\n"


def _sample_lines(folder: str, split: str, samples: Sequence[Sample]) -> Iterable[str]:
    for number, sample in enumerate(samples):
        filename = image_filename(split, number)
        yield (
            f"  - image_path: {_quoted(f'{folder}/{split}/{filename}')}\n"
            f"    image_filename: {filename}\n"
            f"    label: {sample.label}\n"
            f"    font: {_quoted(sample.font)}\n"
            f"    font_size: {sample.font_size}\n"
            f"    sequence_length: {len(sample.label)}\n"
            f"    augmented: {'true' if sample.augmented else 'false'}\n"
            f"    text_color: {list(sample.text_color)}\n"
            f"    text_position: {list(sample.text_position)}\n"
        )


def _quoted(text: str) -> str:
    """Return `text` as YAML reads it back: as it stands where that is safe, else in JSON's quotes."""
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in _WORDS_OF_YAML:
        return text
    return json.dumps(text, ensure_ascii=False)
