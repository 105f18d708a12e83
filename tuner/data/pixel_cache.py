"""The pixel cache: grey pixels and labels of a dataset, decoded once and shared by all processes.

When a dataset is opened for the first time, its metadata are read and its images are decoded; later, the cached result
is read. The cache is valid until the metadata file, or the size or modification time of an image, changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search_spaces.errors import DataLoaderError
from tuner.data.cache_folder import Bytes, CachedPixels, CacheFolder, PixelFile, cache_folders, writable_folder
from tuner.data.image_lookup import ImageLookup, ImageName, states_digest
from tuner.data.image_statistics import ImageStatistics, image_statistics
from tuner.data.images import decode_images, file_digest
from tuner.data.metadata import UNSEEN_SPLIT, DatasetMetadata, first_problems, read_metadata, read_metadata_bytes
from tuner.data.vocabulary import Labels, Vocabulary, code_point_text


@dataclass(frozen=True)
class CachedSplit:
    """One split: N samples in the order of the metadata.

    Attributes:
        images: Grey pixels, 0 black to 255 white, `(N, 64, 128)`; indexing reads them from the file.
        labels: Labels encoded by `vocabulary`, `(N, L)`.
        vocabulary: The characters of the dataset, and their maximum number in a label.
        split_names: Names of all splits of the dataset.
        image_paths: Absolute paths of the image files.
        font_names: The names of the split's fonts; empty text for samples without a font.
        font_numbers: Index of each sample's font in `font_names`, `(N,)`.
        sizes: Original width and height of each image in pixels, `(N, 2)`.
        digest: SHA-256 of the contents of all image files and of all labels; independent of the paths.
    """

    images: PixelFile | Bytes
    labels: Labels
    vocabulary: Vocabulary
    split_names: Sequence[str]
    image_paths: Sequence[str]
    font_names: Sequence[str]
    font_numbers: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.uint32]
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def aspect_ratios(self) -> npt.NDArray[np.float64]:
        """The original width of each image divided by the image's height, `(N,)`."""
        return self.sizes[:, 0] / self.sizes[:, 1]

    @cached_property
    def image_statistics(self) -> ImageStatistics:
        """Statistics of each image, as `tuner.data.image_statistics` describes them, `(N, 7)`."""
        return image_statistics(self.images)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of characters of each label, `(N,)`."""
        lengths: npt.NDArray[np.int64] = np.argmax(self.labels == self.vocabulary.special.eos, axis=1)
        return lengths

    def encoded_by(self, vocabulary: Vocabulary) -> CachedSplit:
        """Return the split with its labels encoded by the vocabulary of a model, which may have another order.

        Raises:
            DataLoaderError: Labels have characters that `vocabulary` lacks, or more characters than it allows.
        """
        if vocabulary == self.vocabulary:
            return self
        texts = list(map(self.vocabulary.decode, self.labels.tolist()))
        split = list(map(vocabulary.split, texts))
        unknown, longest = vocabulary.unknown(character for text in split for character in text), max(map(len, split))
        problems = [f"the labels have {', '.join(map(code_point_text, unknown[:5]))}"] if unknown else []
        problems += [f"the longest label has {longest} characters"] if longest > vocabulary.max_length else []
        if problems:
            raise DataLoaderError(
                f"{'; '.join(problems)}; the model reads up to {vocabulary.max_length} of the characters {vocabulary}; "
                "use a model that was trained on these characters and lengths"
            )
        return replace(self, labels=np.array(list(map(vocabulary.encode, texts))), vocabulary=vocabulary)


@dataclass(frozen=True)
class PixelCache:
    """The requested splits of a dataset.

    Attributes:
        metadata_path: The metadata file, absolute.
        splits: The splits, keyed by name.
    """

    metadata_path: Path
    splits: Mapping[str, CachedSplit]

    @property
    def fingerprint(self) -> str:
        """Digest of the vocabulary and of the names and contents of these splits; the same on all machines."""
        content: dict[str, object] = {name: split.digest for name, split in self.splits.items()}
        if self.vocabulary != Vocabulary():  # the default is left out, because existing studies store the fingerprint
            content |= {"dataset_info": asdict(self.vocabulary)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters of the dataset, and their maximum number in a label."""
        return next(iter(self.splits.values())).vocabulary

    @property
    def split_names(self) -> Sequence[str]:
        """Names of all splits of the dataset, also of those that were not requested."""
        return next(iter(self.splits.values())).split_names

    @property
    def image_folder(self) -> str:
        """The folder of the first image, absolute."""
        return os.path.dirname(next(iter(self.splits.values())).image_paths[0])

    def __getitem__(self, split: str) -> CachedSplit:
        return self.splits[split]

    @cached_property
    def unseen(self) -> CachedSplit | None:
        """The split `UNSEEN_SPLIT` of the dataset; None if there is none, or if it is one of these splits.

        Raises:
            DataLoaderError: See `open_pixel_cache`.
        """
        if UNSEEN_SPLIT in self.splits or UNSEEN_SPLIT not in self.split_names:
            return None
        return open_pixel_cache(self.metadata_path, [UNSEEN_SPLIT])[UNSEEN_SPLIT]


def open_pixel_cache(
    metadata_path: str | os.PathLike[str], splits: Sequence[str], *, verify: bool = False
) -> PixelCache:
    """Open the cached pixels of a dataset; decode the images first if they are not cached or have changed.

    If several processes open a new dataset, one decodes it and the others wait. A damaged cache is recreated. The
    cache is `.pixel_cache` in the metadata file's folder or, if that folder is read-only, in the user's cache folder.

    Args:
        metadata_path: The dataset's metadata file.
        splits: Names of the requested splits.
        verify: Whether to compare the contents of all image files with the cache, not only size and modification time.

    Raises:
        DataLoaderError: For the reasons of `read_metadata`, or an image cannot be read, or the cache cannot be written.
    """
    file = Path(os.path.abspath(metadata_path))
    digest = hashlib.sha256(read_metadata_bytes(file)).hexdigest()

    def find(folders: Iterable[CacheFolder], splits: Iterable[str]) -> dict[str, CachedSplit]:
        found = {split: _find(folders, split, file, digest, verify=verify) for split in splits}
        return {split: cached for split, cached in found.items() if cached}

    requested = list(dict.fromkeys(splits))
    found = find(cache_folders(file), requested)
    if missing := [split for split in requested if split not in found]:
        metadata = read_metadata(file, missing)  # before the folder is created, as this may fail
        with writable_folder(file) as folder:
            found |= find([folder], missing)  # another process may have decoded them during the wait for the lock
            found |= _decode(folder, metadata, [split for split in missing if split not in found])
    return PixelCache(file, {split: found[split] for split in requested})


def _find(
    folders: Iterable[CacheFolder], split: str, metadata_path: Path, metadata_digest: str, *, verify: bool
) -> CachedSplit | None:
    """Return `split` from the first of `folders` with a valid cache of it; None if no folder has one."""
    for folder in folders:
        pixels = folder.read(split)
        if pixels is None or pixels.description["metadata_digest"] != metadata_digest:
            continue
        cached, description = _cached_split(pixels, metadata_path), pixels.description
        # In another working directory, the same metadata may refer to other image files.
        number, first_name = description["first_relative"]
        first_image, _ = ImageLookup(metadata_path, split).find(ImageName(*first_name))
        if (
            description["split"] == split
            and first_image == cached.image_paths[number]
            and description["states_digest"] == states_digest(cached.image_paths)
            and (not verify or _content_matches(cached))
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
    if problems:  # the splits without problems are removed too
        for split in splits:
            folder.remove(split)
        raise DataLoaderError(first_problems(problems))
    written = {split: folder.read(split) for split in splits}
    return {split: _cached_split(pixels, metadata.path) for split, pixels in written.items() if pixels}


def _write(folder: CacheFolder, metadata: DatasetMetadata, split: str) -> list[str]:
    """Decode and cache the images of `split`; if there are problems, return them and cache nothing."""
    samples = metadata.splits[split]
    states = states_digest(samples.image_paths)  # first, so that a change during decoding invalidates the cache
    labels = np.array(list(map(metadata.vocabulary.encode, samples.labels)))
    base = os.path.dirname(os.path.realpath(metadata.path))
    font_numbers = {name: number for number, name in enumerate(dict.fromkeys(samples.fonts))}
    # All relative paths were found in the same folder. If the first image is found there again, all paths are valid.
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
                "vocabulary": asdict(metadata.vocabulary),
                "split_names": metadata.split_names,
                "labels": labels.tolist(),
                "sizes": sizes,
                "font_names": list(font_numbers),
                "font_numbers": [font_numbers[name] for name in samples.fonts],
            }
    return problems


def _cached_split(pixels: CachedPixels, metadata_path: Path) -> CachedSplit:
    description, folder = pixels.description, os.path.dirname(os.path.realpath(metadata_path))
    return CachedSplit(
        images=pixels.images,
        labels=np.array(description["labels"], np.int16),
        vocabulary=Vocabulary(tuple(description["vocabulary"]["characters"]), description["vocabulary"]["max_length"]),
        split_names=description["split_names"],
        image_paths=[os.path.normpath(os.path.join(folder, path)) for path in description["image_paths"]],
        font_names=description["font_names"],
        font_numbers=np.array(description["font_numbers"], np.uint32),
        sizes=np.array(description["sizes"], np.uint32),
        digest=description["content_digest"],
    )


def _content_matches(cached: CachedSplit) -> bool:
    digests = (file_digest(Path(path).read_bytes()) for path in cached.image_paths)
    return _content_digest(digests, cached.labels) == cached.digest


def _content_digest(digests: Iterable[bytes], labels: Labels) -> str:
    # Bytes if they suffice, because existing studies store digests of bytes.
    smallest = labels.astype(np.uint8) if labels.max() < 256 else labels
    return hashlib.sha256(b"".join(digests) + smallest.tobytes()).hexdigest()
