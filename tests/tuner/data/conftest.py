import shutil

import pytest
import yaml
from PIL import Image

from tuner.data.generation.dataset import generate_dataset


@pytest.fixture(scope="session")
def generated_once(tmp_path_factory):
    """The folder of a generated dataset of 30 + 10 samples; tests must not change it."""
    folder = tmp_path_factory.mktemp("generated") / "generated_data"
    generate_dataset(folder, samples=30, test_samples=10)
    return folder


@pytest.fixture
def generated(generated_once, tmp_path):
    """The metadata file of a copy of the generated dataset that the test may change."""
    shutil.copytree(generated_once, tmp_path / "generated_data")
    return tmp_path / "generated_data" / "metadata.yaml"


@pytest.fixture
def make_dataset(tmp_path):
    """A function that writes a dataset as another tool does, with `yaml.dump`, and returns the metadata file."""

    def make(splits=None, *, size=(128, 64), mode="RGB", color=(200, 10, 30), change=None):
        folder = tmp_path / "dataset"
        content = {"dataset_info": {"generated_by": "text", "image_size": list(size)}}
        for split, labels in (splits or {"train": ["០១២", "៩"], "val": ["៨៨៨៨៨៨៨៨"]}).items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            content[split] = {"samples": []}
            for number, label in enumerate(labels):
                filename = f"{split}_{number:06d}.png"
                Image.new(mode, size, color).save(folder / split / filename)
                sample = {
                    "image_path": f"dataset/{split}/{filename}",
                    "image_filename": filename,
                    "label": label,
                    "font": "KhmerOS",
                    "font_size": 26,
                    "sequence_length": len(label),
                    "augmented": True,
                    "text_color": [0, 0, 0],
                    "text_position": [49, -5],
                }
                content[split]["samples"].append(sample)
        if change:
            change(content)
        path = folder / "metadata.yaml"
        path.write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8")
        return path

    return make
