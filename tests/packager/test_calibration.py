"""Calibration data: npz, folder, function, random; how samples become the model's inputs."""

import numpy as np
import pytest

from agent.contract.errors import UsageError
from agent.contract.manifest import TensorSpec
from packager import calibration
from packager.calibration import load_calibration
from tests.packager import models

IMAGE = TensorSpec("image", "float32", [1, 1, 8, 8])
FREE = TensorSpec("image", "float32", ["n", 1, 8, 8])


def feeds(data):
    return list(data.feeds())


@pytest.mark.parametrize("spec", [IMAGE, FREE])
def test_each_sample_is_fed_once(npz, spec):
    data = load_calibration(str(npz), [spec])
    assert (data.kind, len(data), data.samples) == ("npz", 20, 20)
    assert [feed["image"].shape for feed in feeds(data)] == [(1, 1, 8, 8)] * 20
    np.testing.assert_array_equal(np.concatenate([feed["image"] for feed in feeds(data)]), models.images())


def test_some_samples_are_spread_over_the_set(npz):
    data = load_calibration(str(npz), [IMAGE])
    found = [feed["image"][0] for feed in data.feeds(4)]
    for index, image in zip((0, 5, 10, 15), found, strict=True):
        np.testing.assert_array_equal(image, models.images()[index])


def test_samples_may_hold_whole_inputs(place):
    path = models.samples(place / "s.npz", image=models.images(6)[:, None])
    data = load_calibration(str(path), [IMAGE])
    assert [feed["image"].shape for feed in feeds(data)] == [(1, 1, 8, 8)] * 6


def test_fixed_batch_takes_several_samples_at_once(npz):
    data = load_calibration(str(npz), [TensorSpec("image", "float32", [8, 1, 8, 8])])
    assert (len(data), data.samples) == (2, 20)
    np.testing.assert_array_equal(feeds(data)[1]["image"], models.images()[8:16])


def test_fewer_samples_than_the_batch_are_refused(npz):
    with pytest.raises(UsageError, match="holds 20 samples") as caught:
        load_calibration(str(npz), [TensorSpec("image", "float32", [32, 1, 8, 8])])
    assert caught.value.expected.startswith("32 at least")


def test_state_that_has_no_batch_is_fed_whole(place):
    specs = [TensorSpec("x", "float32", [1, 4]), TensorSpec("h", "float32", [2, 1, 3]), TensorSpec("sr", "int64", [])]
    arrays = {"x": models.weights(5, 4), "h": models.weights(5, 2, 1, 3), "sr": np.full(5, 16000)}
    data = load_calibration(str(models.samples(place / "s.npz", **arrays)), specs)
    assert [{name: array.shape for name, array in feed.items()} for feed in feeds(data)] == [
        {"x": (1, 4), "h": (2, 1, 3), "sr": ()}
    ] * 5


def test_labels_beside_the_inputs_are_no_input(place):
    path = models.samples(place / "eval.npz", image=models.images(), labels=np.arange(20))
    assert set(load_calibration(str(path), [IMAGE]).arrays) == {"image"}


def test_folder_of_arrays(place):
    (place / "data").mkdir()
    np.save(place / "data" / "x.npy", models.weights(7, 4))
    np.save(place / "data" / "k.npy", models.weights(7, 2))
    specs = [TensorSpec("x", "float32", ["n", 4]), TensorSpec("k", "float32", ["n", 2])]
    data = load_calibration(str(place / "data"), specs)
    assert (data.kind, len(data)) == ("folder", 7)


_FUNCTIONS = """
import numpy as np
import neighbour

def arrays():
    print("reading")
    return {"image": np.zeros((6, 1, 8, 8), np.float32)}

def one_by_one():
    import later
    for index in range(3):
        yield {"image": np.full((1, 8, 8), index, np.float32)}

def ragged():
    return [{"image": np.zeros((1, 8, 8), np.float32)}, {"image": np.zeros((1, 9, 8), np.float32)}]

def unnamed():
    return [np.zeros(3)]

def unlike():
    return [{"image": np.zeros(3)}, {"picture": np.zeros(3)}]

def nothing():
    return []

def number():
    return 3

def fails():
    raise KeyError("samples")
"""


@pytest.fixture
def functions(place):
    (place / "data.py").write_text(_FUNCTIONS)
    (place / "neighbour.py").write_text("")
    (place / "later.py").write_text("")
    return place / "data.py"


def test_function_of_arrays(functions, capsys):
    data = load_calibration(f"{functions}:arrays", [IMAGE])
    assert (data.kind, len(data)) == ("function", 6)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "reading\n")


def test_function_of_samples_one_by_one(functions):
    data = load_calibration(f"{functions}:one_by_one", [IMAGE])
    assert [float(feed["image"].max()) for feed in feeds(data)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ragged", "raised ValueError"),
        ("unnamed", "no samples by input name"),
        ("unlike", "no samples by input name"),
        ("nothing", "no samples by input name"),
        ("number", "no samples by input name"),
        ("fails", "raised KeyError"),
        ("arays", "did you mean 'arrays'"),
    ],
)
def test_function_that_is_wrong_is_told(functions, name, told):
    with pytest.raises(UsageError, match=told):
        load_calibration(f"{functions}:{name}", [IMAGE])


def test_random_data_is_the_same_every_time_and_within_bounds():
    specs = [TensorSpec("x", "float16", ["n", 4]), TensorSpec("ids", "int64", [1, 3]), TensorSpec("m", "bool", [2])]
    one = load_calibration("random", specs, None, {"ids": 5})
    two = load_calibration("random", specs, None, {"ids": 5})
    assert one.kind == "random"
    assert one.record() == two.record()
    assert (one.arrays["ids"].min(), one.arrays["ids"].max()) == (0, 4)
    assert {name: array.dtype.name for name, array in one.arrays.items()} == {
        "x": "float16",
        "ids": "int64",
        "m": "bool",
    }
    assert len(one) == calibration.RANDOM_SAMPLES


def test_digest_is_of_the_numbers_not_of_the_file(place, npz):
    np.savez_compressed(place / "packed.npz", image=models.images())
    np.savez(place / "other.npz", image=models.images(seed=8))
    digests = [load_calibration(str(place / f), [IMAGE]).record().digest for f in ("packed.npz", "other.npz")]
    assert digests[0] == load_calibration(str(npz), [IMAGE]).record().digest != digests[1]


@pytest.mark.parametrize(("count", "code"), [(1, "few-calibration-samples"), (15, "few-calibration-samples"), (16, "")])
def test_few_samples_are_a_doubt(place, count, code):
    data = load_calibration(str(models.samples(place / "s.npz", count)), [IMAGE])
    assert [finding.code for finding in data.findings()] == ([code] if code else [])
