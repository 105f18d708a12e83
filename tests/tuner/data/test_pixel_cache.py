import contextlib
import hashlib
import os
import pickle
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from search_spaces.errors import DataLoaderError
from search_spaces.files.file_locks import wait_for_lock
from tuner.data import pixel_cache
from tuner.data.cache_folder import cache_folders
from tuner.data.generation.png import encode_png
from tuner.data.pixel_cache import open_pixel_cache
from tuner.data.vocabulary import Vocabulary

VOCABULARY = Vocabulary()

SPLITS = ["train", "val"]


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    """The path of the user's cache folder, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    return tmp_path / "user_cache"


def cache_files(metadata_path):
    """Return the inodes of the pixel files, keyed by file name: a recreated file has another inode."""
    return {path.name: path.stat().st_ino for path in (metadata_path.parent / ".pixel_cache").glob("*.npy")}


def assert_same(one, other):
    assert one.fingerprint == other.fingerprint
    for split in one.splits:
        assert np.array_equal(one[split].images, other[split].images)
        assert np.array_equal(one[split].labels, other[split].labels)


def repaint(image):
    """Change the pixels of an image file, but neither its size nor its modification time."""
    status = image.stat()
    image.write_bytes(encode_png(255 - np.asarray(Image.open(image))))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_cache_has_grey_pixels_labels_fonts_and_lengths(generated):
    cache = open_pixel_cache(generated, SPLITS)
    train = cache["train"]
    assert (len(train), len(cache["val"])) == (24, 6)
    assert train.images[:].shape == (24, 64, 128)
    assert train.labels.shape == (24, 9)
    assert (train.images[0].dtype, train.labels.dtype) == (np.uint8, np.int16)
    assert (train.vocabulary, set(train.split_names)) == (VOCABULARY, {"train", "val", "test"})
    for number in (0, 23):
        grey = Image.open(train.image_paths[number]).convert("L")
        assert np.array_equal(train.images[number], np.asarray(grey))
        assert train.lengths[number] == len(VOCABULARY.decode(train.labels[number]))
        assert train.font_names[train.font_numbers[number]].startswith("NotoSansKhmer-")


@pytest.mark.parametrize("size", [(256, 128), (10, 300), (3000, 1)])
def test_cache_has_the_original_sizes_of_the_images(size, make_dataset):
    path = make_dataset({"train": ["១", "២"], "val": ["៣"]}, size=size)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    Image.new("L", (40, 20)).save(path.parent / "train" / "train_000001.png", exif=exif)
    for _ in range(2):  # first decoded, then cached
        train = open_pixel_cache(path, ["train"])["train"]
        assert train.sizes.tolist() == [list(size), [20, 40]]
        assert train.aspect_ratios.tolist() == [size[0] / size[1], 0.5]


def test_cache_of_an_earlier_layout_is_recreated(generated):
    before = open_pixel_cache(generated, SPLITS)
    for file in (generated.parent / ".pixel_cache").glob("*.jsonl"):
        line = file.read_bytes().partition(b"\n")[2].replace(b'"layout": 5', b'"layout": 4')
        file.write_bytes(hashlib.sha256(line).hexdigest().encode() + b"\n" + line)
    files = cache_files(generated)
    after = open_pixel_cache(generated, SPLITS)
    assert not files.items() & cache_files(generated).items()
    assert after.fingerprint == before.fingerprint
    assert after["val"].sizes.tolist() == [[128, 64]] * 6


def test_dataset_opened_again_uses_the_cached_files(generated):
    first = open_pixel_cache(generated, SPLITS)
    files = cache_files(generated)
    assert_same(first, open_pixel_cache(generated, SPLITS, verify=True))
    assert cache_files(generated) == files
    assert len(files) == 2


@pytest.mark.parametrize("name", ["held-out", "ការសាកល្បង", "a/b", "x" * 300])
def test_split_may_have_any_name(name, make_dataset):
    path = make_dataset({"train": ["១"]})
    path.write_text(
        path.read_text(encoding="utf-8").replace("train:\n", f'? "{name}"\n:\n').replace("dataset/train", "train"),
        encoding="utf-8",
    )
    path.rename(path.parent / "train" / "metadata.yaml")
    assert len(open_pixel_cache(path.parent / "train" / "metadata.yaml", [name])[name]) == 1


@pytest.mark.parametrize(
    ("size", "mode", "color", "grey"),
    [
        ((256, 128), "RGB", (90, 90, 90), 90),
        ((64, 128), "L", 17, 17),
        ((1, 1), "RGB", (5, 5, 5), 5),
        ((128, 64), "RGBA", (0, 0, 0, 0), 255),  # transparency becomes white
        ((128, 64), "P", 0, 0),
        ((128, 64), "1", 1, 255),
    ],
)
def test_images_of_other_sizes_and_modes_are_converted(size, mode, color, grey, make_dataset):
    images = open_pixel_cache(make_dataset(size=size, mode=mode, color=color), ["val"])["val"].images[:]
    assert images.shape == (1, 64, 128)
    assert np.all(images == grey)


def test_resized_image_keeps_left_and_right(make_dataset):
    path = make_dataset({"train": ["១"]}, size=(256, 128))
    original = Image.new("L", (256, 128), 255)
    original.paste(0, (0, 0, 128, 128))  # the left half is black
    original.save(path.parent / "train" / "train_000000.png")
    image = open_pixel_cache(path, ["train"])["train"].images[0]
    assert np.all(image[:, :60] == 0)
    assert np.all(image[:, 68:] == 255)


def test_all_unreadable_images_are_reported_and_nothing_is_cached(generated):
    broken = [generated.parent / "train" / "train_000003.png", generated.parent / "val" / "val_000001.png"]
    broken[0].write_bytes(b"not an image")
    broken[1].write_bytes(broken[1].read_bytes()[:3000])
    with pytest.raises(DataLoaderError) as caught:
        open_pixel_cache(generated, SPLITS)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [str(path) for path in broken]
    assert cache_files(generated) == {}
    assert not list((generated.parent / ".pixel_cache").glob("*.unfinished"))


def test_invalid_metadata_create_no_cache_files(make_dataset):
    path = make_dataset({"train": ["x"]})
    with pytest.raises(DataLoaderError):
        open_pixel_cache(path, ["train"])
    assert cache_files(path) == {}


def test_image_with_another_modification_time_is_decoded_again(generated):
    before = open_pixel_cache(generated, SPLITS)
    image = Path(before["train"].image_paths[5])
    repaint(image)
    os.utime(image, ns=(0, 12345))
    after = open_pixel_cache(generated, SPLITS)
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(after["train"].images[5], np.asarray(Image.open(image).convert("L")))
    assert after["val"].digest == before["val"].digest


def test_changed_image_with_the_same_size_and_time_is_only_detected_with_verify(generated):
    before = open_pixel_cache(generated, SPLITS)
    repaint(Path(before["train"].image_paths[5]))
    assert open_pixel_cache(generated, SPLITS).fingerprint == before.fingerprint
    assert open_pixel_cache(generated, SPLITS, verify=True).fingerprint != before.fingerprint


def test_changed_label_replaces_the_cache_and_removes_old_splits(generated):
    before = open_pixel_cache(generated, [*SPLITS, "test"])
    label = VOCABULARY.decode(before["train"].labels[0])
    text = generated.read_text(encoding="utf-8")
    generated.write_text(text.replace(f'"label": "{label}"', '"label": "៧៧៧"'), encoding="utf-8")
    after = open_pixel_cache(generated, ["train"])
    assert VOCABULARY.decode(after["train"].labels[0]) == "៧៧៧"
    assert after["train"].digest != before["train"].digest
    assert list(cache_files(generated)) == ["metadata.yaml.train.npy"]


@pytest.mark.parametrize("file", ["npy", "jsonl"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "other", "start", "first line", "middle", "end"])
def test_damaged_cache_is_recreated(file, damage, generated):
    before = open_pixel_cache(generated, SPLITS)
    expected = {split: before[split].images[:] for split in SPLITS}
    path = generated.parent / ".pixel_cache" / f"metadata.yaml.train.{file}"
    data = bytearray(path.read_bytes())
    position = {"start": 0, "first line": 30, "middle": len(data) // 2, "end": len(data) - 2}
    if damage in position:
        data[position[damage]] ^= 0x10
    contents = {"empty": b"", "cut": data[: len(data) // 2], "other": b"x" * len(data)}
    path.unlink()
    if damage != "gone":
        path.write_bytes(bytes(contents.get(damage, data)))
    after = open_pixel_cache(generated, SPLITS)
    assert after.fingerprint == before.fingerprint
    for split in SPLITS:
        assert np.array_equal(after[split].images, expected[split])
    files = cache_files(generated)
    open_pixel_cache(generated, SPLITS)
    assert cache_files(generated) == files


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_flipped_bit_in_the_header_never_gives_other_pixels(generated):
    before = open_pixel_cache(generated, ["val"])["val"].images[:]
    (folder, _) = cache_folders(generated)
    path = folder.path / "metadata.yaml.val.npy"
    data = path.read_bytes()
    for bit in range(8 * 128):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.unlink()
        path.write_bytes(flipped)
        pixels = folder.read("val")
        assert pixels is None or np.array_equal(pixels.images, before)  # parts of the header are padding


@pytest.mark.parametrize("suffix", ["npy", "jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "sparse", "brackets"])
def test_special_file_instead_of_a_cache_file_is_replaced(kind, suffix, generated):
    before = open_pixel_cache(generated, SPLITS)
    path = generated.parent / ".pixel_cache" / f"metadata.yaml.train.{suffix}"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # socket paths must be short
            server.bind(path.name)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(300 * 10**9)
    else:
        line = b"[" * 200_000
        path.write_bytes(hashlib.sha256(line).hexdigest().encode() + b"\n" + line)
    assert_same(before, open_pixel_cache(generated, SPLITS))
    assert path.is_file()
    assert not path.is_symlink()


def test_error_names_a_pipe_instead_of_the_lock_file(generated, user_cache):
    (generated.parent / ".pixel_cache").mkdir()
    os.mkfifo(generated.parent / ".pixel_cache" / "lock")
    assert len(open_pixel_cache(generated, ["val"])["val"]) == 6  # in the user's cache folder
    shutil.rmtree(user_cache)
    user_cache.write_bytes(b"")
    with pytest.raises(DataLoaderError, match=r"pixel_cache: it is not a regular file; .*make one of these folders"):
        open_pixel_cache(generated, ["val"])


def test_error_names_a_process_that_holds_the_lock_without_progress(generated, user_cache, child, monkeypatch):
    monkeypatch.setitem(wait_for_lock.__kwdefaults__, "timeout_s", 0.1)
    user_cache.write_bytes(b"")
    process = child("lock", generated.parent / ".pixel_cache" / "lock")
    process.stdout.readline()
    with pytest.raises(DataLoaderError, match=rf"process {process.pid} has held this lock for 0\.1 s.*kill -CONT"):
        open_pixel_cache(generated, ["val"])
    user_cache.unlink()
    assert len(open_pixel_cache(generated, ["val"])["val"]) == 6
    assert list(user_cache.rglob("*.npy"))


def test_decoding_process_touches_the_lock_file(generated, monkeypatch):
    lock = generated.parent / ".pixel_cache" / "lock"
    ages = []
    decode = pixel_cache.decode_images

    def decode_with_old_lock(paths):
        os.utime(lock, (0, 0))
        yield from decode(paths)
        ages.append(time.time() - lock.stat().st_mtime)

    monkeypatch.setattr(pixel_cache, "decode_images", decode_with_old_lock)
    open_pixel_cache(generated, ["val"])
    assert len(ages) == 1
    assert ages[0] < 60


def test_pixels_truncated_while_in_use_raise_an_error_and_are_recreated_when_opened(generated):
    cache = open_pixel_cache(generated, SPLITS)
    expected = cache["train"].images[:]
    path = generated.parent / ".pixel_cache" / "metadata.yaml.train.npy"
    os.truncate(path, 100_000)
    assert np.array_equal(cache["train"].images[3], expected[3])
    for index in (20, slice(None), np.array([1, 20])):
        with pytest.raises(OSError, match="the cached pixels were truncated while in use") as caught:
            cache["train"].images[index]
        assert caught.value.filename == path
    assert np.array_equal(open_pixel_cache(generated, SPLITS)["train"].images[:], expected)


def test_pixels_are_indexed_like_an_array_and_pickled_as_an_array(generated):
    images = open_pixel_cache(generated, ["train"])["train"].images
    array = pickle.loads(pickle.dumps(images))
    assert isinstance(array, np.ndarray)
    assert array.shape == (24, 64, 128)
    for index in (0, -1, slice(3, 9), slice(None, None, -5), np.array([5, 2, 2]), np.array([], np.int64)):
        assert np.array_equal(images[index], array[index])
    with pytest.raises(IndexError):
        images[24]


@pytest.mark.parametrize("killed_in", ["json.dumps", "os.replace"])
def test_process_killed_between_writing_the_two_files_leaves_no_valid_cache(killed_in, generated, monkeypatch):
    before = open_pixel_cache(generated, ["train"])
    repaint(Path(before["train"].image_paths[5]))
    os.utime(before["train"].image_paths[5])
    with monkeypatch.context() as patched:
        patched.setattr(f"tuner.data.cache_folder.{killed_in}", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            open_pixel_cache(generated, ["train"])
    after = open_pixel_cache(generated, ["train"])
    assert after.fingerprint != before.fingerprint
    assert after.fingerprint == open_pixel_cache(generated, ["train"], verify=True).fingerprint


def test_fingerprint_of_a_dataset_never_changes(make_dataset):
    """Existing studies have stored the fingerprint."""
    path = make_dataset({"train": ["១", "២៣"], "val": ["៣"]})
    for number, image in enumerate(sorted(path.parent.glob("*/*.png"))):
        image.write_bytes(encode_png(np.full((64, 128, 3), number, np.uint8)))
    fingerprint = open_pixel_cache(path, SPLITS).fingerprint
    assert fingerprint == "cd61e948f461a0f03aa3f711f1319cca02a59286d0045baab771288727070cb6"


def test_fingerprint_does_not_depend_on_the_folder_of_the_dataset(generated, tmp_path):
    other = tmp_path / "copy" / "other_name"
    shutil.copytree(generated.parent, other)
    one, two = (open_pixel_cache(path, SPLITS) for path in (generated, other / "metadata.yaml"))
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != open_pixel_cache(generated, ["train"]).fingerprint
    assert one.fingerprint == open_pixel_cache(generated, ["val", "train", "val"]).fingerprint


def test_moved_dataset_keeps_its_cache(generated, tmp_path):
    open_pixel_cache(generated, SPLITS)
    files = cache_files(generated)
    moved = generated.parent.rename(tmp_path / "moved") / "metadata.yaml"
    cache = open_pixel_cache(moved, SPLITS)
    assert cache_files(moved) == files
    assert Path(cache["train"].image_paths[0]).is_relative_to(tmp_path / "moved")


def test_images_of_the_working_directory_are_ignored_if_the_dataset_has_images(generated, tmp_path, monkeypatch):
    before = open_pixel_cache(generated, SPLITS)
    files = cache_files(generated)
    other = tmp_path / "other" / "generated_data"
    shutil.copytree(generated.parent, other)
    repaint(other / "train" / "train_000000.png")
    monkeypatch.chdir(tmp_path / "other")
    assert_same(before, open_pixel_cache(generated, SPLITS))
    shutil.rmtree(generated.parent / ".pixel_cache")
    assert_same(before, open_pixel_cache(generated, SPLITS))
    assert cache_files(generated) != files


@pytest.mark.parametrize("first_is_absolute", [False, True])
def test_change_of_the_working_directory_invalidates_a_cache_of_its_images(
    first_is_absolute, generated, tmp_path, monkeypatch
):
    """The cache was created in a working directory with the images, which is searched last."""
    separate = tmp_path / "separate" / "set" / "metadata.yaml"
    separate.parent.mkdir(parents=True)
    text = generated.read_text(encoding="utf-8")
    if first_is_absolute:
        text = text.replace("generated_data/train/train_000000", f"{generated.parent}/train/train_000000")
    separate.write_text(text, encoding="utf-8")
    shutil.copytree(generated.parent, tmp_path / "other" / "generated_data")
    repaint(tmp_path / "other" / "generated_data" / "train" / "train_000001.png")
    fingerprints = []
    for folder in (tmp_path, tmp_path / "other", tmp_path):
        monkeypatch.chdir(folder)
        cache = open_pixel_cache(separate, ["train"])
        assert cache["train"].image_paths[1] == str(folder / "generated_data" / "train" / "train_000001.png")
        fingerprints.append(cache.fingerprint)
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]


def test_linked_dataset_uses_the_same_cache(generated, tmp_path):
    before = open_pixel_cache(generated, SPLITS)
    files = cache_files(generated)
    link = tmp_path / "other" / "deeper" / "link"
    link.parent.mkdir(parents=True)
    link.symlink_to(generated.parent)
    assert_same(before, open_pixel_cache(link / "metadata.yaml", SPLITS))
    assert cache_files(generated) == files


def test_cache_is_in_the_users_cache_folder_if_the_dataset_folder_is_not_writable(generated, tmp_path, monkeypatch):
    (generated.parent / ".pixel_cache").write_text("a file")  # prevents writing even for root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = open_pixel_cache(generated, SPLITS)
    files = sorted((tmp_path / "cache" / "khmer-ocr-tuner").rglob("*.npy"))
    assert len(files) == 2
    times = [path.stat().st_mtime_ns for path in files]
    assert_same(first, open_pixel_cache(generated, SPLITS))
    assert [path.stat().st_mtime_ns for path in files] == times


def test_error_if_the_disk_is_too_small_leaves_no_files(generated):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DataLoaderError, match=r"cannot write the pixel cache: .*; it needs 1 MB; free some space"):
            open_pixel_cache(generated, SPLITS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (generated.parent / ".pixel_cache").exists()


def test_writing_to_the_arrays_does_not_change_the_cache(generated):
    first = open_pixel_cache(generated, SPLITS)
    before, written = first["train"].images[0], first["train"].images[0]
    written[:] = 77
    assert np.array_equal(open_pixel_cache(generated, SPLITS)["train"].images[0], before)


def test_processes_that_open_a_new_dataset_in_parallel_decode_it_once(generated):
    program = (
        "import sys\n"
        "from tuner.data import pixel_cache as module\n"
        "decode = module.decode_images\n"
        "def spy(paths):\n    print('decoded', len(paths)); return decode(paths)\n"
        "module.decode_images = spy\n"
        "print(module.open_pixel_cache(sys.argv[1], ['train', 'val']).fingerprint)"
    )
    root = Path(__file__).parents[3]
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(generated)], stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(4)
    ]
    outputs = [process.communicate()[0].split() for process in running]
    assert all(process.returncode == 0 for process in running)
    assert len({output[-1] for output in outputs}) == 1
    assert sum(output.count("decoded") for output in outputs) == 2  # two splits, by one of the processes


def test_split_requested_later_is_added_to_the_cache(generated):
    open_pixel_cache(generated, SPLITS)
    files = cache_files(generated)
    assert len(open_pixel_cache(generated, ["test"])["test"]) == 10
    assert files.items() < cache_files(generated).items()


def test_dataset_of_another_tool_is_cached(make_dataset):
    cache = open_pixel_cache(make_dataset(), SPLITS)
    assert cache["val"].labels.tolist() == [VOCABULARY.encode("៨៨៨៨៨៨៨៨").tolist()]
    assert cache["train"].images[0][0, 0] == (200 * 299 + 10 * 587 + 30 * 114) // 1000
    assert cache["train"].font_names == ["KhmerOS"]
    assert cache["train"].font_numbers.tolist() == [0, 0]


def test_deleted_image_is_an_error(generated):
    cache = open_pixel_cache(generated, SPLITS)
    Path(cache["val"].image_paths[2]).unlink()
    with pytest.raises(DataLoaderError, match=r"val\.samples\[2\]"):
        open_pixel_cache(generated, SPLITS)


def test_cache_with_images_in_another_order_is_recreated(generated):
    open_pixel_cache(generated, ["val"])
    path = generated.parent / ".pixel_cache" / "metadata.yaml.val.npy"
    images = np.load(path)
    path.unlink()
    np.save(path, images[::-1])
    assert np.array_equal(open_pixel_cache(generated, ["val"])["val"].images, images)


def test_error_names_both_cache_folders_if_neither_is_writable(generated, tmp_path, monkeypatch):
    for path in (generated.parent / ".pixel_cache", tmp_path / "cache"):
        path.write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataLoaderError, match=r"\.pixel_cache.*khmer-ocr-tuner.*XDG_CACHE_HOME"):
        open_pixel_cache(generated, SPLITS)
