import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from search_spaces import DataLoaderError
from tuner.data.batches import SplitBatches, TrainingData, _loader, create_data_loaders, validation_batches
from tuner.data.pixel_cache import open_pixel_cache

CPU = torch.device("cpu")


@pytest.fixture
def split(tiny_dataset):
    return open_pixel_cache(tiny_dataset, ["train"])["train"]


@pytest.fixture
def make_batches(split):
    def make(*, batch_size=10, seed=0, augmented=False):
        return SplitBatches(split, batch_size=batch_size, device=CPU, shuffle_seed=seed, augmented=augmented)

    return make


def joined(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def positions(split, images):
    """Return the index of each undistorted image in its split."""
    numbers = {image.tobytes(): number for number, image in enumerate(split.images)}
    return [numbers[(image * 255).round().byte().numpy().tobytes()] for image in images[:, 0]]


class TestSplitBatches:
    @pytest.mark.parametrize(("batch_size", "sizes"), [(10, [10, 10, 10, 2]), (32, [32]), (64, [32]), (1, [1] * 32)])
    def test_batches_have_the_batch_size_and_the_last_batch_may_be_smaller(self, make_batches, batch_size, sizes):
        batches = make_batches(batch_size=batch_size)
        assert [len(labels) for _, labels in batches.epoch(1)] == sizes
        assert len(batches) == len(sizes)

    @pytest.mark.parametrize("min_gathered", [1, 15, 32, 128])
    def test_every_epoch_has_every_sample_once_with_its_label(self, make_batches, split, monkeypatch, min_gathered):
        monkeypatch.setattr("tuner.data.batches._MIN_GATHERED", min_gathered)
        for epoch in (1, 2):
            assert [len(labels) for _, labels in make_batches().epoch(epoch)] == [10, 10, 10, 2]
            images, labels = joined(make_batches().epoch(epoch))
            order = positions(split, images)
            assert sorted(order) == list(range(32))
            assert order != sorted(order)
            assert np.array_equal(labels.numpy(), split.labels[order])

    @pytest.mark.parametrize("augmented", [False, True])
    def test_order_and_distortions_only_depend_on_seed_and_epoch(self, make_batches, augmented):
        used = make_batches(augmented=augmented)
        for epoch in (1, 2):
            list(used.epoch(epoch))
        torch.manual_seed(99)
        fresh = make_batches(augmented=augmented)
        for one, other in zip(joined(used.epoch(3)), joined(fresh.epoch(3)), strict=True):
            assert torch.equal(one, other)
        assert not torch.equal(joined(fresh.epoch(3))[1], joined(fresh.epoch(4))[1])
        assert not torch.equal(joined(fresh.epoch(3))[1], joined(make_batches(seed=1).epoch(3))[1])

    def test_distortions_of_an_image_differ_between_epochs(self, make_batches):
        one, other = (
            make_batches(augmented=True, batch_size=32, seed=0),
            make_batches(augmented=True, batch_size=32, seed=0),
        )
        sums = [sorted(image.sum().item() for image in joined(b.epoch(e))[0]) for b, e in ((one, 1), (other, 2))]
        assert sums[0] != sums[1]

    def test_validation_batches_are_in_order_and_undistorted(self, split):
        images, _ = joined(validation_batches(split, CPU).epoch(0))
        assert positions(split, images) == list(range(32))

    def test_training_data_uses_the_configured_splits_and_batch_size(self, tiny_config, tiny_dataset):
        cache = open_pixel_cache(tiny_dataset, ["test", "val"])
        config = tiny_config(train_split="test", val_split="val", batch_size=4, augmentation=False)
        data = TrainingData.of(config, cache, CPU)
        assert sorted(positions(cache["test"], joined(data.train.epoch(1))[0])) == list(range(10))
        assert positions(cache["val"], joined(data.val.epoch(1))[0]) == list(range(8))
        assert len(data.train) == 3


class TestDataLoaders:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_loaders_yield_every_sample_once_and_validation_in_order(self, tiny_config, tiny_dataset, workers):
        cache = open_pixel_cache(tiny_dataset, ["train", "val"])
        train, val = create_data_loaders(tiny_config(num_workers=workers, augmentation=False, batch_size=10))
        assert isinstance(train, DataLoader)
        images, labels = joined(train)
        order = positions(cache["train"], images)
        assert sorted(order) == list(range(32))
        assert order != sorted(order)
        assert np.array_equal(labels.numpy(), cache["train"].labels[order])
        assert positions(cache["val"], joined(val)[0]) == list(range(8))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_same_seed_gives_the_same_batches_and_epochs_differ(self, tiny_config, workers):
        def two_epochs(seed=0):
            train, _ = create_data_loaders(tiny_config(num_workers=workers, seed=seed))
            return [joined(train)[0] for _ in range(2)]

        torch.manual_seed(1)
        first, second = two_epochs()
        torch.manual_seed(2)  # the global generator must have no effect
        again = two_epochs()
        assert torch.equal(first, again[0])
        assert torch.equal(second, again[1])
        assert not torch.equal(first.sum(0), second.sum(0))
        assert not torch.equal(first, two_epochs(seed=1)[0])

    @pytest.mark.parametrize(("requested", "low", "high"), [(0, 0, 0), (1, 1, 1), (2, 1, 2)])
    def test_number_of_workers_is_as_configured_but_at_most_the_number_of_cores(
        self, tiny_config, requested, low, high
    ):
        for loader in create_data_loaders(tiny_config(num_workers=requested)):
            assert low <= loader.num_workers <= high
            # Without a timeout, a hanging worker would block the program forever.
            assert (loader.timeout > 0) == (requested > 0)

    @pytest.mark.parametrize(
        ("requested", "message"), [(3, "num_workers: found 3; the data loaders use 2, one per CPU core"), (2, "")]
    )
    def test_warning_if_there_are_fewer_cores_than_configured_workers(
        self, requested, message, tiny_config, monkeypatch, caplog
    ):
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        train, _ = create_data_loaders(tiny_config(num_workers=requested))
        assert train.num_workers == 2
        assert (message in caplog.text) if message else caplog.text == ""

    def test_distortions_differ_between_workers(self, tiny_config, split):
        same = replace(split, images=np.repeat(split.images[:1], len(split), axis=0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch warns on a machine with one core
            one, other = (images for images, _ in _loader(same, tiny_config(batch_size=16), workers=2, training=True))
        assert not torch.equal(one, other)

    def test_batch_size_pinning_and_augmentation_are_as_configured(self, tiny_config):
        for pinned, augmentation in ((False, True), (True, False)):
            config = tiny_config(batch_size=5, pin_memory=pinned, augmentation=augmentation, num_workers=0)
            train, val = create_data_loaders(config)
            assert (len(train), len(val)) == (7, 2)
            assert train.pin_memory is val.pin_memory is pinned
            pixels = train.dataset[0][0] * 255
            assert torch.allclose(pixels, pixels.round(), atol=1e-4) is not augmentation
            pixels = val.dataset[0][0] * 255
            assert torch.allclose(pixels, pixels.round(), atol=1e-4)

    def test_dataset_can_be_pickled_for_spawned_workers(self, tiny_config):
        train, _ = create_data_loaders(tiny_config(num_workers=0))
        sent = pickle.loads(pickle.dumps(train.dataset))
        assert torch.equal(sent[3][0], train.dataset[3][0])

    def test_same_split_for_training_and_validation_is_refused(self, tiny_config):
        with pytest.raises(DataLoaderError, match=r"val_split: found 'train'.*use two different splits"):
            create_data_loaders(tiny_config(val_split="train"))

    def test_error_names_the_missing_dataset_or_split(self, tiny_config, tmp_path):
        with pytest.raises(DataLoaderError, match=r"nowhere"):
            create_data_loaders(tiny_config(metadata_path=str(tmp_path / "nowhere" / "metadata.yaml")))
        with pytest.raises(DataLoaderError, match="holdout"):
            create_data_loaders(tiny_config(val_split="holdout"))
