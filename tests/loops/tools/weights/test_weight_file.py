"""Tests that h5 files are read bit for bit, and that hostile files of weights are rejected."""

import os
import pathlib
import pickle
import resource

import h5py
import numpy as np
import pytest

import main
from input_pipeline.errors import UsageError
from loops.tools.weights import weight_file
from tests.loops.tools.weights.small_imports import command, get_import_error, load_run, run

# A header that claims 4 GiB.
HUGE_HEADER = b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4]}}'


class Canary:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize("source", ["timm", "torchvision", "h5"])
def test_files_of_another_format_are_rejected(published, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    whole = published[0].read_bytes()
    files = {
        "pickle": pickle.dumps(Canary()),
        "zip": b"PK\x03\x04" + bytes(100),
        "text": b"version https://git-lfs\n",
        "empty": b"",
        "header": (2**62).to_bytes(8, "little") + b"{}",
        "long": (200).to_bytes(8, "little") + HUGE_HEADER,
        "huge": len(HUGE_HEADER).to_bytes(8, "little") + HUGE_HEADER + bytes(4),
    }
    if source != "h5":
        files |= {"short": whole[:-1], "cut": whole[: len(whole) // 2], "head": whole[:500]}
    for name, content in files.items():
        path = tmp_path / f"{name}.bin"
        path.write_bytes(content)
        message = get_import_error(tmp_path, path, "--model=resnet_18", f"--source={source}")
        assert message.startswith(f"--weights={path}: "), message
    assert not (tmp_path / "canary").exists()
    assert "no such file" in get_import_error(tmp_path, tmp_path / "none", "--model=resnet_18")
    assert "--weights is missing" in get_import_error(tmp_path, "", "--model=resnet_18")


def test_pickle_exits_with_code_2_and_a_one_line_error(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Canary()))
    assert main.main(command(tmp_path, path, "--run_name=r")) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"error: --weights={path}: a pickle") and stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["weights.pth"]
    path = path.rename(tmp_path / "resnet50-11ad3fa6.pth")
    assert "--weights=timm/resnet50.tv2_in1k has the same" in get_import_error(tmp_path, path)


def test_h5_round_trip_is_bit_identical(own_file, tmp_path, one_device):
    path, content = own_file
    results = run(tmp_path, path, "--source=h5", "--model=resnetse_18", "--run_name=r")
    assert results["ignored"] == 0
    ours, _ = load_run(tmp_path / "r", one_device)
    assert ours.keys() == content.keys()
    for name, value in content.items():
        np.testing.assert_array_equal(ours[name], value, name)


def replace_dataset(file, **create):
    del file["layers/batch_norm/vars/0"]
    file.create_dataset("layers/batch_norm/vars/0", **create)


def replace_by_link(make):
    def change(file):
        del file["layers/batch_norm/vars/0"]
        file["layers/batch_norm/vars/0"] = make(file)

    return change


def replace_by_virtual(file):
    layout = h5py.VirtualLayout((64,), "f4")
    layout[:] = h5py.VirtualSource(file.filename, "layers/batch_norm/vars/1", (64,))
    del file["layers/batch_norm/vars/0"]
    file.create_virtual_dataset("layers/batch_norm/vars/0", layout)


def add_cycle(file):
    file["layers/batch_norm/loop"] = file["/"]


HUGE = {"shape": (32768, 65536), "dtype": "f4"}

HOSTILE = {
    "nan": lambda f: replace_dataset(f, data=np.full(64, np.nan, "f4")),
    "shape": lambda f: replace_dataset(f, data=np.zeros((5, 5), "f4")),
    "float64": lambda f: replace_dataset(f, data=np.zeros(64)),
    "string": lambda f: replace_dataset(f, data=np.full(64, b"x")),
    "objects": lambda f: replace_dataset(f, shape=(64,), dtype=h5py.string_dtype()),
    "packed": lambda f: replace_dataset(
        f, data=np.zeros(64, "f4"), chunks=(64,), compression="gzip"
    ),
    "bomb": lambda f: replace_dataset(f, **HUGE, chunks=(1024, 1024), compression="gzip"),
    "unwritten": lambda f: replace_dataset(f, **HUGE),
    "external": lambda f: replace_dataset(
        f, shape=(64,), dtype="f4", external=[("secret", 0, 256)]
    ),
    "external link": replace_by_link(lambda f: h5py.ExternalLink("b.h5", "/x")),
    "soft link": replace_by_link(lambda f: h5py.SoftLink("/layers/batch_norm/vars/1")),
    "virtual": replace_by_virtual,
    "cycle": add_cycle,
    "missing": lambda f: f.__delitem__("layers/batch_norm/vars/0"),
    "too many": lambda f: f["layers/batch_norm/vars"].create_dataset("4", data=np.zeros(3, "f4")),
    "nameless": lambda f: f["layers/batch_norm/vars"].attrs.__delitem__("name"),
    "same name": lambda f: f["layers/batch_norm/vars"].attrs.__setitem__(
        "name", "stage1_block1_conv1_bn"
    ),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_h5_files_are_rejected(own_file, tmp_path, monkeypatch, fault, quick_net):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("secret").write_bytes(bytes(256))
    path = tmp_path / "a.weights.h5"
    path.write_bytes(own_file[0].read_bytes())
    with h5py.File(path, "a") as file:
        HOSTILE[fault](file)
    message = get_import_error(tmp_path, path, "--source=h5", "--model=resnetse_18")
    assert message.startswith(f"--weights={path}: ")


@pytest.mark.parametrize("fault", ["bomb", "unwritten"])
def test_claimed_sizes_are_not_allocated(own_file, tmp_path, fault):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(own_file[0].read_bytes())
    with h5py.File(path, "a") as file:
        HOSTILE[fault](file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        pytest.raises(UsageError, match=r"compressed|contains fewer"),
        weight_file.open_file(str(path), "h5"),
    ):
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_truncated_h5_and_h5_of_another_net_are_rejected(own_file, tmp_path, quick_net):
    path = tmp_path / "cut.weights.h5"
    path.write_bytes(own_file[0].read_bytes()[:-500])
    assert "not a valid h5 file" in get_import_error(
        tmp_path, path, "--source=h5", "--model=resnetse_18"
    )
    message = get_import_error(tmp_path, own_file[0], "--source=h5", "--model=resnet_18")
    assert "32 tensors" in message and "would be left over" in message
