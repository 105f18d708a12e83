"""Reading `metadata.yaml`, which lists the images and labels of a dataset."""

from __future__ import annotations

import difflib
import hashlib
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search_spaces.diagnostics.diagnostics import other_kind
from search_spaces.errors import DataLoaderError
from search_spaces.files.regular_files import read_bytes
from tuner.data.image_lookup import ImageName, find_images
from tuner.data.vocabulary import (
    DEFAULT_MAX_LENGTH,
    KHMER_DIGITS,
    MAX_LABEL_LENGTH,
    SPECIAL_SYMBOLS,
    Vocabulary,
    character_problems,
    code_point_text,
    split_characters,
)

_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # PyYAML may be built without libyaml

_MAX_DEPTH = 50


class YamlMapping(dict[str, "Node"]):
    """A mapping in the file; `line` is its first line, counted from 1."""

    line: int = 0


Node = str | list["Node"] | YamlMapping
"""A value in the file: text, a list, or a mapping with text keys."""


class _TextLoader(_Loader):  # type: ignore[misc]
    """A PyYAML loader that returns all scalars as text; aliases and merge keys are resolved, tags ignored."""

    _depth = 0

    def descend_resolver(self, parent: yaml.Node, index: Any) -> None:
        # The composer calls this for each node. The limit keeps deeply nested files from exhausting the stack.
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"it is nested more than {_MAX_DEPTH} levels deep", problem_mark=parent.start_mark
            )

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> YamlMapping:
        mapping = YamlMapping()
        mapping.line = node.start_mark.line + 1
        merged: list[Node] = []
        for key_node, value_node in node.value:
            key, value = self.construct_object(key_node), self.construct_object(value_node)
            if key == "<<":
                merged += value if isinstance(value, list) else [value]
            elif isinstance(key, str):
                mapping[key] = value
        for source in merged:
            if isinstance(source, YamlMapping):
                mapping.update({key: value for key, value in source.items() if key not in mapping})
        return mapping


def load_yaml(data: bytes, file: Path) -> Node:
    """Parse the first YAML document in `data`; return empty text if `data` has no document.

    Raises:
        DataLoaderError: `data` is not YAML in UTF-8; the message gives `file`, line and column.
    """
    try:
        document: Node = next(yaml.load_all(data, _TextLoader), "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        why = f"{error.problem} ({error.context})" if error.context else error.problem
        raise DataLoaderError(f"{file}{where}: is not valid YAML: {why}; correct this line") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        raise DataLoaderError(
            f"{file}: is not YAML in UTF-8: {why}; choose the dataset's metadata.yaml, or save this file as UTF-8"
        ) from error
    return document


UNSEEN_SPLIT = "unseen"  # fonts of designs that no other split contains
_MAX_SHOWN = 20


@dataclass(frozen=True)
class SplitMetadata:
    """The samples of one split; all sequences have one entry per sample, in file order.

    Attributes:
        names: The image names in the metadata.
        image_paths: Absolute paths of the image files, all of which exist.
        labels: The labels, each valid in the dataset's vocabulary.
        fonts: Names of the fonts; empty text for samples without a font.
    """

    names: tuple[ImageName, ...]
    image_paths: tuple[str, ...]
    labels: tuple[str, ...]
    fonts: tuple[str, ...]


@dataclass(frozen=True)
class DatasetMetadata:
    """The requested splits of a metadata file.

    Attributes:
        path: The metadata file, absolute.
        digest: SHA-256 of the file.
        vocabulary: The characters of the labels, and their maximum number in a label.
        split_names: Names of all splits in the file.
        splits: The requested splits, keyed by name.
    """

    path: Path
    digest: str
    vocabulary: Vocabulary
    split_names: tuple[str, ...]
    splits: Mapping[str, SplitMetadata]


def read_metadata(path: str | os.PathLike[str], splits: Sequence[str]) -> DatasetMetadata:
    """Read the samples of `splits` and find their images; unknown keys are ignored.

    These files are searched, and the first one that exists is the sample's image: `image_path` relative to the parent
    of the metadata file's folder; `image_path` relative to the metadata file's folder; `{split}/{image_filename}` in
    the metadata file's folder; `image_path` relative to the working directory.

    Args:
        path: The metadata file.
        splits: Names of the requested splits.

    Raises:
        DataLoaderError: The file or a split is missing or empty, the character set is invalid, a label has other
            characters or is too long, an image does not exist, or the images of a split are in different folders. All
            problems are reported together, but at most twenty of each kind.
    """
    file = Path(os.path.abspath(path))
    data = read_metadata_bytes(file)
    root = load_yaml(data, file)
    if not isinstance(root, YamlMapping):
        raise DataLoaderError(
            f"{file}: found {_kind(root)}; expected a mapping with splits such as 'train' and 'val' at the top level; "
            f"{_EXAMPLE}"
        )
    problems: list[str] = []
    vocabulary = _read_vocabulary(root, file, problems)
    found = {}
    for split in dict.fromkeys(splits):
        samples = _samples(root, file, split, problems)
        found[split] = _read_split(samples, file, split, vocabulary, problems)
    if problems:
        raise DataLoaderError(problems)
    assert vocabulary, "an invalid vocabulary is a problem"
    return DatasetMetadata(file, hashlib.sha256(data).hexdigest(), vocabulary, _split_names(root), found)


def read_metadata_bytes(file: Path) -> bytes:
    """Read the bytes of the metadata file.

    Raises:
        DataLoaderError: The file does not exist or cannot be read.
    """
    try:
        return read_bytes(file)
    except FileNotFoundError:
        raise DataLoaderError(
            f"{file}: the dataset's metadata file does not exist; "
            "generate a dataset with `khmer-tuner data`, or correct its path (--metadata or 'data.metadata_path')"
        ) from None
    except OSError as error:
        raise DataLoaderError(
            f"{file}: the dataset's metadata file cannot be read: {error.strerror or error}; "
            "use the path of the dataset's metadata.yaml, and check the permissions of that file"
        ) from error


def first_problems(problems: Sequence[str]) -> list[str]:
    """Return the first twenty of `problems` and, if there are more, a line with the number of the others."""
    shown = list(problems[:_MAX_SHOWN])
    if len(problems) > _MAX_SHOWN:
        shown.append(f"... and {len(problems) - _MAX_SHOWN} more like these")
    return shown


def _read_vocabulary(root: YamlMapping, file: Path, problems: list[str]) -> Vocabulary | None:
    """Read the vocabulary in ``dataset_info``; without a valid one, append to `problems` and return None."""
    info = root.get("dataset_info", YamlMapping())
    if not isinstance(info, YamlMapping):
        problems.append(f"{file}: dataset_info: found {_kind(info)}; expected a mapping; correct or remove it")
        return None
    entries, length = info.get("character_set", list(KHMER_DIGITS)), info.get("max_sequence_length", DEFAULT_MAX_LENGTH)
    where, found, characters = f"{file}:{info.line}: dataset_info", list[str](), list[str]()
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        example = ", ".join(split_characters(entries)) if isinstance(entries, str) else ""
        found.append(
            f"{where}.character_set: found {_kind(entries)}; expected a list of characters; "
            f"use [{example or 'a, b, c'}]"
        )
    else:
        characters = [unicodedata.normalize("NFC", str(entry)) for entry in entries if entry not in SPECIAL_SYMBOLS]
        found += [f"{where}.character_set: {problem}" for problem in first_problems(character_problems(characters))]
    if str(length) not in map(str, range(1, MAX_LABEL_LENGTH + 1)):
        found.append(
            f"{where}.max_sequence_length: found {length!r}; expected a whole number from 1 to {MAX_LABEL_LENGTH}; "
            "use the number of characters in the longest label"
        )
    problems += found
    return None if found else Vocabulary(tuple(characters), int(str(length)))


def _samples(root: YamlMapping, file: Path, split: str, problems: list[str]) -> Sequence[Node]:
    """Return the samples of `split`; without a valid list, append to `problems` and return an empty list."""
    if split not in root:
        problems.append(f"{file}: split {split!r} is missing; {_other_split(root, split)}")
        return []
    node = root[split]
    if not isinstance(node, YamlMapping):
        problems.append(f"{file}: {split}: found {_kind(node)}; expected a mapping with the key 'samples'; {_EXAMPLE}")
        return []
    samples = node.get("samples")
    if not isinstance(samples, list) or not samples:
        found = "nothing" if samples is None else _kind(samples)
        problems.append(
            f"{file}:{node.line}: {split}.samples: found {found}; expected a list of at least one sample; {_EXAMPLE}"
        )
        return []
    return samples


_EXAMPLE = "use, for example, 'train: {samples: [{image_path: train/1.png, label: ១២}]}'"


def _other_split(root: YamlMapping, split: str) -> str:
    """Return a hint: the existing splits, or the kind of file that this file seems to be."""
    known = _split_names(root)
    if not known:
        return other_kind(root, "dataset_info") or f"found no splits; {_EXAMPLE}"
    near = difflib.get_close_matches(split, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "use one of these, or add the split"
    return f"found {', '.join(map(repr, known))}; {hint}"


def _split_names(root: YamlMapping) -> tuple[str, ...]:
    return tuple(name for name, node in root.items() if isinstance(node, YamlMapping) and "samples" in node)


def _kind(node: Node) -> str:
    if isinstance(node, str):
        return f"the text {node[:30]!r}" if node else "nothing"
    return "a mapping" if isinstance(node, YamlMapping) else f"a list of {len(node)}"


def _read_split(
    samples: Sequence[Node], file: Path, split: str, vocabulary: Vocabulary | None, problems: list[str]
) -> SplitMetadata:
    names, labels, fonts, invalid, entries = [], [], [], [], []
    for number, sample in enumerate(samples):
        if not isinstance(sample, YamlMapping):
            text = f"found {_kind(sample)}; expected a mapping with image_path and label"
            invalid.append(f"{file}: {split}.samples[{number}]: {text}; correct or remove the sample")
            continue
        label = _text(sample, "label")
        name = ImageName(_text(sample, "image_path"), _text(sample, "image_filename"))
        invalid += [
            f"{file}:{sample.line}: {split}.samples[{number}].{problem}" for problem in _sample_problems(sample, name)
        ]
        names.append(name)
        entries.append((sample.line, number))
        labels.append(label)
        fonts.append(_text(sample, "font"))

    def entry(at: int) -> str:
        return f"{file}:{entries[at][0]}: {split}.samples[{entries[at][1]}]"

    problems += first_problems(invalid)
    if vocabulary:
        problems += _label_problems(labels, vocabulary, entry)
    paths, missing = find_images(names, file, split, entry)
    problems += first_problems(missing)
    return SplitMetadata(tuple(names), tuple(paths), tuple(labels), tuple(fonts))


def _label_problems(labels: Sequence[str], vocabulary: Vocabulary, entry: Callable[[int], str]) -> list[str]:
    """Return a problem for all labels with unknown characters, and one for all labels that are too long."""
    split = list(map(vocabulary.split, labels))
    unknown = {at: found for at, characters in enumerate(split) if (found := vocabulary.unknown(characters))}
    lengths = {at: len(characters) for at, characters in enumerate(split) if at not in unknown}
    longest = max(lengths, key=lengths.__getitem__, default=0)
    too_long = sum(length > vocabulary.max_length for length in lengths.values())
    problems = []
    if unknown:
        first, characters = next(iter(unknown)), sorted(set().union(*unknown.values()))
        listed = ", ".join(map(code_point_text, characters[:_MAX_SHOWN]))
        more = f" ({len(unknown):,} labels of this split have unknown characters: {listed})" if len(unknown) > 1 else ""
        problems.append(f"{entry(first)}.label: {vocabulary.label_problem(labels[first])}{more}")
    if too_long:
        more = f" ({too_long:,} labels of this split are too long; this one is the longest)" if too_long > 1 else ""
        problems.append(f"{entry(longest)}.label: {vocabulary.label_problem(labels[longest])}{more}")
    return problems


def _sample_problems(sample: YamlMapping, name: ImageName) -> list[str]:
    found = []
    if "label" not in sample:
        near = difflib.get_close_matches("label", sample, n=1)
        remedy = f"found the key {near[0]!r}: did you mean 'label'?" if near else "add the label"
        found.append(f"label: is missing; expected the text in the image; {remedy}")
    elif not isinstance(sample["label"], str):
        found.append(f"label: found {_kind(sample['label'])}; expected the text in the image; use, for example, ១២")
    elif not sample["label"]:
        found.append("label: found an empty label; expected the text in the image; write it, or remove the sample")
    if not name.path and not name.filename:
        found.append("image_path: is missing; expected the path of an image; add the path")
    return found


def _text(sample: YamlMapping, key: str) -> str:
    value = sample.get(key)
    return value if isinstance(value, str) else ""
