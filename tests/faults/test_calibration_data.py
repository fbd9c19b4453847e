"""Broken calibration data: each test is named after its fault."""

import io
import zipfile

import numpy as np
import pytest

from tests.packager import models

USAGE = 2


@pytest.fixture
def build(refused, place):
    """Builds INT8 with the arrays given, or with the file's bytes."""
    models.classifier(place / "m.onnx")

    def call(content=None, **arrays):
        if arrays:
            models.samples(place / "cal.npz", **arrays)
        elif content is not None:
            (place / "cal.npz").write_bytes(content)
        return refused("build", "m.onnx", "-t", "raspberry-pi-5", "-r", "int8", "-c", "cal.npz")

    return call


def raw(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **(arrays or {"image": models.images()}))
    return buffer.getvalue()


def test_no_such_file(build):
    status, said = build()
    assert (status, "no such calibration data" in said) == (USAGE, True)


def test_no_calibration_says_both_ways_out(refused, place):
    models.classifier(place / "m.onnx")
    status, said = refused("build", "m.onnx", "-t", "raspberry-pi-5")
    assert status == USAGE
    assert "--calibration" in said
    assert "--recipe fp32" in said


def test_wrong_key(build):
    status, said = build(imag=models.images())
    assert status == USAGE
    assert "'imag'" in said
    assert "did you mean 'image'" in said


def test_missing_key(build):
    status, said = build(labels=np.arange(20))
    assert (status, "lacks the input 'image'" in said) == (USAGE, True)


@pytest.mark.parametrize("kind", ["float64", "uint8", ">f4", "complex64"])
def test_wrong_dtype(build, kind):
    status, said = build(image=models.images().astype(kind))
    assert (status, "'image' has the type" in said, ".astype('float32')" in said) == (USAGE, True, True)


@pytest.mark.parametrize("shape", [(20, 8, 8), (20, 3, 8, 8), (20, 1, 9, 8), (20, 64), (20,), (20, 1, 1, 1, 8, 8)])
def test_wrong_shape(build, shape):
    status, said = build(image=np.zeros(shape, np.float32))
    assert status == USAGE
    assert "[samples, 1, 8, 8]" in said


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity(build, value):
    data = models.images()
    data[7, 0, 3, 3] = value
    status, said = build(image=data)
    assert (status, "first in sample 7" in said) == (USAGE, True)


def test_no_samples(build):
    assert build(image=np.zeros((0, 1, 8, 8), np.float32))[0] == USAGE
    assert build(image=np.float32(3))[0] == USAGE


def test_different_numbers_of_samples(refused, place):
    from onnx import helper

    ends = [models.tensor("a", [1, 4]), models.tensor("b", [1, 4])], [models.tensor("y", [1, 4])]
    models.save(place / "two.onnx", [helper.make_node("Add", ["a", "b"], ["y"])], *ends)
    models.samples(place / "cal.npz", a=models.weights(3, 4), b=models.weights(4, 4))
    status, said = refused("build", "two.onnx", "-t", "raspberry-pi-5", "-r", "fp32", "-c", "cal.npz")
    assert (status, "a 3, b 4" in said) == (USAGE, True)


@pytest.mark.parametrize("content", [b"", b"0.1,0.2\n", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_not_an_npz(build, content):
    assert build(content)[0] == USAGE


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_truncated_npz(build, share):
    whole = raw()
    status, said = build(whole[: int(len(whole) * share)])
    assert (status, "not a readable numpy file" in said) == (USAGE, True)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_flipped_bits_in_npz(build, share):
    damaged = bytearray(raw())
    damaged[int(len(damaged) * share)] ^= 0x55
    assert build(bytes(damaged))[0] == USAGE


def test_single_array_instead_of_npz(build):
    buffer = io.BytesIO()
    np.save(buffer, models.images())
    status, said = build(buffer.getvalue())
    assert (status, "one array per input" in said) == (USAGE, True)


def test_pickle_in_npz_is_never_loaded(build, place):
    class Bomb:
        def __reduce__(self):
            return (open, (str(place / "exploded"), "w"))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("image.npy", buffer.getvalue())
    assert build(archive.getvalue())[0] == USAGE
    assert not (place / "exploded").exists()


def test_empty_folder(refused, place):
    models.classifier(place / "m.onnx")
    (place / "data").mkdir()
    assert refused("build", "m.onnx", "-t", "raspberry-pi-5", "-c", "data")[0] == USAGE


def test_function_that_is_not_there(refused, place):
    models.classifier(place / "m.onnx")
    status, said = refused("build", "m.onnx", "-t", "raspberry-pi-5", "-c", "nowhere.py:samples")
    assert (status, "no such file" in said) == (USAGE, True)


def test_function_that_fails(refused, place):
    models.classifier(place / "m.onnx")
    (place / "data.py").write_text("def samples():\n    return open('no-such-file')\n")
    status, said = refused("build", "m.onnx", "-t", "raspberry-pi-5", "-c", "data.py:samples")
    assert (status, "FileNotFoundError" in said) == (USAGE, True)
