"""Makes the pictures of a chunk of samples; as a program, of chunk after chunk for another process.

`python -m tuner.data.rendering.worker` reads one JSON object a line: first the task, then chunks. It
answers each chunk with one line, `{"samples": [...]}` or `{"error": [errno, text, path]}`, and ends at the
end of its input.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.data.rendering.fonts import Font
from tuner.data.rendering.png import encode_png
from tuner.data.rendering.sample import Sample, render_sample


@dataclass(frozen=True)
class Task:
    """What all chunks have in common: where the pictures go, and what they depend on besides their number."""

    folder: str
    seed: int
    fonts: tuple[Font, ...]

    def as_json(self) -> str:
        """Return the task as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Task:
        """Return the task of a line that `as_json` made."""
        plain = json.loads(line)
        fonts = tuple(Font(**{**font, "axes": tuple(font["axes"])}) for font in plain["fonts"])
        return cls(folder=plain["folder"], seed=plain["seed"], fonts=fonts)


@dataclass(frozen=True)
class Chunk:
    """Samples `start` to `stop` (excluded) of the split with this name and number."""

    split: str
    split_number: int
    start: int
    stop: int


def image_filename(split: str, number: int) -> str:
    """Return the file name of a sample's picture."""
    return f"{split}_{number:06d}.png"


def write_chunk(task: Task, chunk: Chunk) -> list[Sample]:
    """Write the pictures of `chunk` and return what they show.

    Raises:
        OSError: If a picture cannot be written.
    """
    folder = os.path.join(task.folder, chunk.split)
    samples = []
    for number in range(chunk.start, chunk.stop):
        sample, pixels = render_sample(task.fonts, task.seed, chunk.split_number, number)
        with open(os.path.join(folder, image_filename(chunk.split, number)), "wb", buffering=0) as file:
            file.write(encode_png(pixels))
        samples.append(sample)
    return samples


def samples_from_json(plain: Iterable[dict[str, Any]]) -> list[Sample]:
    """Return the samples of a worker's answer."""
    return [
        Sample(
            **{
                **fields,
                "text_color": tuple(fields["text_color"]),
                "text_position": tuple(fields["text_position"]),
            }
        )
        for fields in plain
    ]


def main() -> int:
    """Serve chunks until the input ends."""
    task = Task.from_json(sys.stdin.readline())
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = {"samples": [vars(sample) for sample in write_chunk(task, Chunk(**json.loads(line)))]}
        except OSError as error:
            answer = {"error": [error.errno, error.strerror, str(Path(error.filename or task.folder))]}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
