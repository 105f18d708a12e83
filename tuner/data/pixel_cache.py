"""Grey pixels and labels of a dataset, decoded once and shared by all processes.

The first opening of a dataset reads its YAML and decodes its images; later ones map the result into memory.
Whether it still fits is asked cheaply: the digest of the metadata, and size and modification time of each
image.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search_spaces.errors import DataLoaderError
from tuner.data.cache_folder import CacheFolder, cache_folders, writable_folder
from tuner.data.image_decoding import decode_images, file_digest
from tuner.data.image_lookup import ImageName, image_candidates
from tuner.data.image_paths import ImagePaths
from tuner.data.image_statistics import looks
from tuner.data.metadata import DatasetMetadata, SplitMetadata, read_metadata, read_metadata_bytes
from tuner.data.pixel_file import PixelFile, PixelFileWriter, font_numbers, pixel_file_size, size_rows
from tuner.data.problems import first_problems
from tuner.data.vocabulary import EOS, encode_label

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CachedSplit:
    """One split, memory-mapped; N samples in the order of the metadata. Writing to it changes no file.

    Attributes:
        images: Grey pixels, 0 black to 255 white, `(N, 64, 128)`.
        labels: Digits, EOS, PAD, as `encode_label` gives them, `(N, 9)`.
        image_paths: The image files, absolute.
        font_names: The fonts of the split; empty text for samples without one.
        font_numbers: Which of `font_names` each sample has, `(N,)`.
        sizes: Width and height in pixels that each image had before it was resized, `(N, 2)`.
        digest: SHA-256 over the bytes of all image files and labels: the same wherever the files lie.
    """

    images: Bytes
    labels: Bytes
    image_paths: Sequence[str]
    font_names: Sequence[str]
    font_numbers: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.uint32]
    digest: str

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)

    @cached_property
    def fonts(self) -> list[str]:
        """Name of each sample's font."""
        return [self.font_names[number] for number in self.font_numbers]

    @cached_property
    def aspect_ratios(self) -> npt.NDArray[np.float64]:
        """Width divided by height of each image before it was resized, `(N,)`."""
        ratios: npt.NDArray[np.float64] = self.sizes[:, 0] / self.sizes[:, 1]
        return ratios

    @cached_property
    def looks(self) -> npt.NDArray[np.float64]:
        """What each image looks like, as `tuner.data.image_statistics` describes it, `(N, 7)`."""
        return looks(self.images)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of digits of each label, `(N,)`."""
        lengths: npt.NDArray[np.int64] = np.argmax(self.labels == EOS, axis=1)
        return lengths


@dataclass(frozen=True)
class PixelCache:
    """The splits of a dataset that were asked for.

    Attributes:
        metadata_path: The metadata file, absolute.
        splits: The splits by name.
    """

    metadata_path: Path
    splits: Mapping[str, CachedSplit]

    @property
    def fingerprint(self) -> str:
        """Digest of the content of these splits and their names: equal for equal data on any machine."""
        digests = {name: split.digest for name, split in self.splits.items()}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def __getitem__(self, split: str) -> CachedSplit:
        """Return the split of this name."""
        return self.splits[split]


def open_pixel_cache(
    metadata_path: str | os.PathLike[str], splits: Sequence[str], *, verify: bool = False
) -> PixelCache:
    """Open the pixels of a dataset, decoding them first where that was not done yet or no longer fits.

    Of several processes that open a new dataset one decodes, and the others wait for it. A damaged cache is
    made again. The cache lies in `.pixel_cache` beside the metadata, or in the user's cache folder if that
    is read-only.

    Args:
        metadata_path: The dataset's metadata file.
        splits: Names of the splits wanted.
        verify: Read all image files and compare their content, not only their size and time.

    Raises:
        DataLoaderError: As `read_metadata`, and if an image cannot be read or no cache can be written.
    """
    file = Path(os.path.abspath(metadata_path))
    digest = hashlib.sha256(read_metadata_bytes(file)).hexdigest()
    wanted = list(dict.fromkeys(splits))
    opener = _Opener(file, digest, verify)
    found = {split: opener.find(cache_folders(file), split) for split in wanted}
    if missing := [split for split, pixels in found.items() if pixels is None]:
        metadata = read_metadata(file, missing)  # first: where something is wrong with them, no folder is made
        with writable_folder(file) as folder:
            found |= {split: opener.find([folder], split) for split in missing}  # made while we waited for the lock?
            found |= opener.make(folder, metadata, [split for split in missing if found[split] is None])
    return PixelCache(file, {split: _cached_split(file, pixels) for split, pixels in found.items() if pixels})


class _Opener:
    """Finds and makes the pixel files of one dataset."""

    def __init__(self, metadata_path: Path, metadata_digest: str, verify: bool) -> None:
        self._metadata_path = metadata_path
        self._metadata_digest = metadata_digest
        self._verify = verify

    def find(self, folders: Iterable[CacheFolder], split: str) -> PixelFile | None:
        """Return the pixel file of `split` if one of `folders` has one that fits the dataset and is whole."""
        for folder in folders:
            pixels = folder.read(split)
            if pixels and self._fits(pixels, split) and pixels.is_undamaged():
                return pixels
        return None

    def make(
        self, folder: CacheFolder, metadata: DatasetMetadata, splits: Sequence[str]
    ) -> dict[str, PixelFile | None]:
        """Decode `splits` and write their pixel files into `folder`."""
        if not splits:
            return {}
        self._metadata_digest = metadata.digest
        folder.remove_stale(metadata.digest)
        problems: list[str] = []
        for split in splits:
            problems += self._write(folder, split, metadata.splits[split])
        if problems:  # of bad input nothing is kept, not even its good parts
            for split in splits:
                folder.remove(split)
            raise DataLoaderError(first_problems(problems))
        return {split: folder.read(split) for split in splits}

    def _fits(self, pixels: PixelFile, split: str) -> bool:
        described = pixels.description
        if described["metadata_digest"] != self._metadata_digest or described["split"] != split:
            return False
        paths = ImagePaths.from_description(described, self._metadata_path.parent)
        # The same metadata may mean other files from another working directory.
        candidates = image_candidates(ImageName(*described["first_name"]), self._metadata_path, split)
        if next((path for path in candidates if path and os.path.isfile(path)), None) != paths[0]:
            return False
        if paths.states_digest() != described["states_digest"]:
            return False
        return not self._verify or _has_content(paths, pixels.array("digests"))

    def _write(self, folder: CacheFolder, split: str, samples: SplitMetadata) -> list[str]:
        """Write the pixel file of `split`, or return what is wrong with its images."""
        paths = ImagePaths.of(samples.image_paths)
        states_digest = paths.states_digest()  # first: what changes while it is decoded is to be noticed
        labels = np.array([encode_label(label) for label in samples.labels])
        numbers, names = font_numbers(samples.fonts)
        problems: list[str] = []
        sizes, digests = [], []
        with folder.new_file(split, pixel_file_size(len(labels))) as new:
            writer = PixelFileWriter(new.file)
            for batch in decode_images(samples.image_paths):
                problems += batch.problems
                sizes.append(batch.sizes)
                digests.append(batch.digests)
                writer.write(batch.pixels)
            content = np.concatenate(digests)
            for array in (labels, numbers, size_rows(np.concatenate(sizes)), content):
                writer.write(array)
            description = {
                "metadata_name": self._metadata_path.name,
                "metadata_digest": self._metadata_digest,
                "split": split,
                "first_name": samples.names[0],
                "states_digest": states_digest,
                "digest": hashlib.sha256(content.tobytes() + labels.tobytes()).hexdigest(),
                "font_names": names,
                **paths.description(self._metadata_path.parent),
            }
            writer.finish(len(labels), description)
            new.keep = not problems
        return problems


def _cached_split(metadata_path: Path, pixels: PixelFile) -> CachedSplit:
    return CachedSplit(
        images=pixels.array("images"),
        labels=pixels.array("labels"),
        image_paths=ImagePaths.from_description(pixels.description, metadata_path.parent),
        font_names=pixels.description["font_names"],
        font_numbers=pixels.array("fonts").view("<u4")[:, 0].astype(np.uint32),
        sizes=pixels.array("sizes").view("<u4").astype(np.uint32),
        digest=pixels.description["digest"],
    )


def _has_content(paths: Sequence[str], digests: Bytes) -> bool:
    for path, digest in zip(paths, digests, strict=True):
        with open(path, "rb") as file:
            if not np.array_equal(file_digest(file.read()), digest):
                return False
    return True
