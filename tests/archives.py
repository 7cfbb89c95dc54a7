"""Small archives of exactly the structure of the official ones."""

import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SYNSETS = {"n01440764": 5, "n01443537": 3, "n02084071": None, "n02119789": 4}
"""Of the small ImageNet, by their names: the number of training images, or None for a synset that groups others."""
NUM_VAL_BY_CLASS = 2


def write_imagenet(folder: Path) -> Path:
    """ILSVRC2012's three archives, and a file of their sums."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = [name for name, count in SYNSETS.items() if count is not None]
    numbers = {name: number for number, name in enumerate(reversed(classes), start=1)}  # their order isn't the names'
    tars = {f"{name}.tar": tar_of(_train_images(name, SYNSETS[name])) for name in reversed(classes)}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(tars))
    val_classes = [classes[number % len(classes)] for number in range(NUM_VAL_BY_CLASS * len(classes))]
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(1000 + n) for n in range(1, len(val_classes) + 1)}
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
    truth = "".join(f"{numbers[name]}\n" for name in val_classes)
    kit = {
        "ILSVRC2012_devkit_t12/readme.txt": b"",
        "ILSVRC2012_devkit_t12/data/meta.mat": _meta(numbers),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of(kit, mode="w:gz"))
    return write_sums(folder)


def write_sums(folder: Path) -> Path:
    """The MD5 sums of the archives in a folder, as md5sum writes them. Returns the folder."""
    archives = sorted(path for path in folder.iterdir() if path.name != "MD5SUMS")
    lines = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in archives]
    (folder / "MD5SUMS").write_text("".join(lines))
    return folder


def tar_of(files: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    """A tar archive of files; a TarInfo stands for a member that isn't one."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode, format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive.getvalue()


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG")
    return file.getvalue()


def _train_images(class_name: str, count: int) -> dict[str, bytes]:
    numbers = [10026, 9, 271, 3, 18][:count]
    return {f"{class_name}_{number}.JPEG": jpeg(int(class_name[1:]) + number) for number in numbers}


def _meta(numbers: dict[str, int]) -> bytes:
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
    synsets = np.zeros((len(SYNSETS), 1), dtype=[(field, object) for field in [*fields, "num_train_images"]])
    order = sorted(SYNSETS, key=lambda name: numbers.get(name, 1000))
    for row, name in enumerate(order):
        leaf = SYNSETS[name] is not None
        children = [] if leaf else list(numbers.values())
        values = (row + 1, name, "words", "gloss", len(children), children, 0 if leaf else 1, SYNSETS[name] or 0)
        synsets[row, 0] = values
    file = io.BytesIO()
    savemat(file, {"synsets": synsets}, do_compression=True)
    return file.getvalue()


def small_pictures(num_images: int, seed: int) -> np.ndarray:
    """uint8[n, 32, 32, 3], none like another."""
    return np.random.default_rng(seed).integers(0, 256, (num_images, 32, 32, 3)).astype(np.uint8)


CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_cifar10(folder: Path, version: str) -> Path:
    """CIFAR-10 with 100 training images in five batches and 20 test images. version: "python" or "binary"."""
    pictures, labels = small_pictures(120, seed=0), [(7 * n) % 10 for n in range(120)]
    batches = {f"data_batch_{n + 1}": slice(20 * n, 20 * n + 20) for n in range(5)} | {"test_batch": slice(100, 120)}
    if version == "binary":
        files = {f"{name}.bin": _records([labels[rows]], pictures[rows]) for name, rows in batches.items()}
        files["batches.meta.txt"] = "\n".join([*CIFAR10_NAMES, "", ""]).encode()
        top = "cifar-10-batches-bin"
    else:
        files = {name: _batch({"labels": labels[rows]}, pictures[rows]) for name, rows in batches.items()}
        files["batches.meta"] = python2_pickle({"num_vis": 3072, "label_names": CIFAR10_NAMES})
        top = "cifar-10-batches-py"
    return _write_cifar(folder, f"cifar-10-{version}.tar.gz", top, files)


def write_cifar100(folder: Path, version: str) -> Path:
    """CIFAR-100 with 1000 training images and 100 test images. version: "python" or "binary"."""
    names = [f"class_{label:02d}" for label in range(100)]
    pictures, fine = small_pictures(1100, seed=1), [(13 * n) % 100 for n in range(1100)]
    coarse = [label // 5 for label in fine]
    rows = {"train": slice(0, 1000), "test": slice(1000, 1100)}
    if version == "binary":
        files = {f"{name}.bin": _records([coarse[r], fine[r]], pictures[r]) for name, r in rows.items()}
        files["fine_label_names.txt"] = "\n".join([*names, ""]).encode()
        files["coarse_label_names.txt"] = b"fish\n"
        top = "cifar-100-binary"
    else:
        files = {
            name: _batch({"fine_labels": fine[r], "coarse_labels": coarse[r]}, pictures[r]) for name, r in rows.items()
        }
        files["meta"] = python2_pickle({"fine_label_names": names, "coarse_label_names": ["fish"]})
        top = "cifar-100-python"
    return _write_cifar(folder, f"cifar-100-{version}.tar.gz", top, files)


def _write_cifar(folder: Path, name: str, top: str, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    directory = tarfile.TarInfo(top)
    directory.type = tarfile.DIRTYPE
    members = {top: directory, f"{top}/readme.html": b"<html>"} | {f"{top}/{n}": data for n, data in files.items()}
    (folder / name).write_bytes(tar_of(members, mode="w:gz"))
    return write_sums(folder)


def _planes(pictures: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).reshape(len(pictures), 3072)


def _records(label_columns: list[list[int]], pictures: np.ndarray) -> bytes:
    return np.concatenate([np.array(label_columns, dtype=np.uint8).T, _planes(pictures)], axis=1).tobytes()


def _batch(labels: dict[str, list[int]], pictures: np.ndarray) -> bytes:
    return python2_pickle({"batch_label": "a batch", **labels, "data": _planes(pictures), "filenames": ["a_s_1.png"]})


def python2_pickle(value: object) -> bytes:
    """A pickle as Python 2 wrote CIFAR's: protocol 2, byte strings, arrays as old numpy rebuilds them."""
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_pickled(key) + _pickled(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(_pickled(item) for item in value) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, np.ndarray):
        begin = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(map(_pickled, value.shape)) + b"t"
        return begin + b"(K\x01" + shape + dtype + b"\x89" + _pickled(value.tobytes()) + b"tb"
    data = value.encode() if isinstance(value, str) else bytes(value)
    return b"T" + struct.pack("<i", len(data)) + data


def write_svhn(folder: Path, *, num_train: int, num_extra: int, num_test: int) -> Path:
    """SVHN's three files; the digits in turn, and 0 as the label 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": num_train, "extra": num_extra, "test": num_test}.items()):
        pictures = small_pictures(count, seed=10 + seed)
        labels = np.array([[number % 10 + 1] for number in range(count)], dtype=np.uint8)
        savemat(folder / f"{name}_32x32.mat", {"X": pictures.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    return write_sums(folder)
