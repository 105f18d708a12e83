"""Grey pixels and labels of a dataset, decoded once and shared by all processes.

The first opening of a dataset reads its YAML and decodes its images; later ones map the result into memory. A cheap
test tells whether it still fits: the digest of the metadata, and size and modification time of each image.
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
from tuner.data.cache_folder import Bytes, CachedPixels, CacheFolder, PixelFile, cache_folders, writable_folder
from tuner.data.image_decoding import decode_images, file_digest
from tuner.data.image_lookup import ImageLookup, ImageName, states_digest
from tuner.data.image_statistics import ImageStatistics, image_statistics
from tuner.data.metadata import DatasetMetadata, first_problems, read_metadata, read_metadata_bytes
from tuner.data.vocabulary import EOS, encode_label


@dataclass(frozen=True)
class CachedSplit:
    """One split; N samples in the order of the metadata.

    Attributes:
        images: Grey pixels, 0 black to 255 white, `(N, 64, 128)`, each read when it is indexed.
        labels: Digits, EOS, PAD, as `encode_label` gives them, `(N, 9)`.
        image_paths: The image files, absolute.
        font_names: The fonts of the split; empty text for samples without one.
        font_numbers: Which of `font_names` each sample has, `(N,)`.
        sizes: Width and height in pixels that each image had before it was resized, `(N, 2)`.
        digest: SHA-256 over the bytes of all image files and labels: the same wherever the files lie.
    """

    images: PixelFile | Bytes
    labels: Bytes
    image_paths: Sequence[str]
    font_names: Sequence[str]
    font_numbers: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.uint32]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def aspect_ratios(self) -> npt.NDArray[np.float64]:
        """Width divided by height of each image before it was resized, `(N,)`."""
        return self.sizes[:, 0] / self.sizes[:, 1]

    @cached_property
    def image_statistics(self) -> ImageStatistics:
        """Statistics of each image, as `tuner.data.image_statistics` describes them, `(N, 7)`."""
        return image_statistics(self.images)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of digits of each label, `(N,)`."""
        lengths: npt.NDArray[np.int64] = np.argmax(self.labels == EOS, axis=1)
        return lengths


@dataclass(frozen=True)
class PixelCache:
    """The requested splits of a dataset.

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

    @property
    def image_folder(self) -> str:
        """The folder of the first image, absolute."""
        return os.path.dirname(next(iter(self.splits.values())).image_paths[0])

    def __getitem__(self, split: str) -> CachedSplit:
        return self.splits[split]


def open_pixel_cache(
    metadata_path: str | os.PathLike[str], splits: Sequence[str], *, verify: bool = False
) -> PixelCache:
    """Open the pixels of a dataset, decoding them first where that was not done yet or no longer fits.

    If several processes open a new dataset, one decodes it and the others wait. A damaged cache is made again. The
    cache lies in `.pixel_cache` beside the metadata, or in the user's cache folder if that is read-only.

    Args:
        metadata_path: The dataset's metadata file.
        splits: Names of the splits wanted.
        verify: Read all image files and compare their content, not only their size and time.

    Raises:
        DataLoaderError: As `read_metadata`, and if an image cannot be read or no cache can be written.
    """
    file = Path(os.path.abspath(metadata_path))
    digest = hashlib.sha256(read_metadata_bytes(file)).hexdigest()

    def find(folders: Iterable[CacheFolder], splits: Iterable[str]) -> dict[str, CachedSplit]:
        found = {split: _find(folders, split, file, digest, verify=verify) for split in splits}
        return {split: cached for split, cached in found.items() if cached}

    wanted = list(dict.fromkeys(splits))
    found = find(cache_folders(file), wanted)
    if missing := [split for split in wanted if split not in found]:
        metadata = read_metadata(file, missing)  # first: if it has problems, no folder is created
        with writable_folder(file) as folder:
            found |= find([folder], missing)  # another process may have decoded them while this one waited
            found |= _decode(folder, metadata, [split for split in missing if split not in found])
    return PixelCache(file, {split: found[split] for split in wanted})


def _find(
    folders: Iterable[CacheFolder], split: str, metadata_path: Path, metadata_digest: str, *, verify: bool
) -> CachedSplit | None:
    """Return `split` if one of `folders` holds an undamaged cache that fits the dataset."""
    for folder in folders:
        pixels = folder.read(split)
        if pixels is None or pixels.description["metadata_digest"] != metadata_digest:
            continue
        cached, described = _cached_split(pixels, metadata_path), pixels.description
        # The same metadata may mean other files from another working directory.
        number, first_name = described["first_relative"]
        first_image, _ = ImageLookup(metadata_path, split).find(ImageName(*first_name))
        if (
            described["split"] == split
            and first_image == cached.image_paths[number]
            and described["states_digest"] == states_digest(cached.image_paths)
            and (not verify or _has_content(cached))
        ):
            return cached
    return None


def _decode(folder: CacheFolder, metadata: DatasetMetadata, splits: Sequence[str]) -> dict[str, CachedSplit]:
    if not splits:
        return {}
    folder.remove_stale(metadata.digest)
    problems: list[str] = []
    for split in splits:
        problems += _write(folder, metadata, split)
    if problems:  # of bad input nothing is kept, not even its good parts
        for split in splits:
            folder.remove(split)
        raise DataLoaderError(first_problems(problems))
    written = {split: folder.read(split) for split in splits}
    return {split: _cached_split(pixels, metadata.path) for split, pixels in written.items() if pixels}


def _write(folder: CacheFolder, metadata: DatasetMetadata, split: str) -> list[str]:
    """Write the pixels of `split`, or return the problems of its images."""
    samples = metadata.splits[split]
    states = states_digest(samples.image_paths)  # first: an image that changes while it is decoded must be noticed
    labels = np.array([encode_label(label) for label in samples.labels])
    base = os.path.dirname(os.path.realpath(metadata.path))
    font_numbers = {name: number for number, name in enumerate(dict.fromkeys(samples.fonts))}
    # All relative paths start at one place, so one of them shows whether it is still the same.
    first = next((number for number, name in enumerate(samples.names) if not os.path.isabs(name.path)), 0)
    problems: list[str] = []
    sizes: list[tuple[int, int]] = []
    digests: list[bytes] = []
    with folder.writer(split, len(labels)) as writer:
        for batch in decode_images(samples.image_paths):
            problems += batch.problems
            sizes += batch.sizes
            digests += batch.digests
            writer.write(batch.pixels)
        if not problems:
            writer.description = {
                "metadata_name": metadata.path.name,
                "metadata_digest": metadata.digest,
                "split": split,
                "first_relative": (first, samples.names[first]),
                "states_digest": states,
                "content_digest": _content_digest(digests, labels),
                "image_paths": [os.path.relpath(path, base) for path in samples.image_paths],
                "labels": labels.tolist(),
                "sizes": sizes,
                "font_names": list(font_numbers),
                "font_numbers": [font_numbers[name] for name in samples.fonts],
            }
    return problems


def _cached_split(pixels: CachedPixels, metadata_path: Path) -> CachedSplit:
    described, folder = pixels.description, os.path.dirname(os.path.realpath(metadata_path))
    return CachedSplit(
        images=pixels.images,
        labels=np.array(described["labels"], np.uint8),
        image_paths=[os.path.normpath(os.path.join(folder, path)) for path in described["image_paths"]],
        font_names=described["font_names"],
        font_numbers=np.array(described["font_numbers"], np.uint32),
        sizes=np.array(described["sizes"], np.uint32),
        digest=described["content_digest"],
    )


def _has_content(cached: CachedSplit) -> bool:
    digests = (file_digest(Path(path).read_bytes()) for path in cached.image_paths)
    return _content_digest(digests, cached.labels) == cached.digest


def _content_digest(digests: Iterable[bytes], labels: Bytes) -> str:
    return hashlib.sha256(b"".join(digests) + labels.tobytes()).hexdigest()
