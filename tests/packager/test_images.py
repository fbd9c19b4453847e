"""A folder of pictures as calibration data, and the preprocessing in the manifest."""

import numpy as np
import pytest

from agent.contract.errors import UsageError
from agent.contract.manifest import Preprocessing, TensorSpec
from packager.calibration import load_calibration
from packager.images import parse_preprocessing
from tests.packager import models

Image = pytest.importorskip("PIL.Image", reason="the images extra is not installed: pip install 'edgepack[images]'")
GREY = TensorSpec("image", "float32", [1, 1, 8, 8], "nchw")
COLOUR = TensorSpec("image", "float32", [1, 3, 4, 6], "nchw")


@pytest.fixture
def pictures(place):
    folder = place / "pictures"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (12, 8), (255, 0, 51)).save(folder / "b.png")
    Image.new("L", (5, 5), 102).save(folder / "more" / "c.jpg", quality=100)
    Image.new("RGB", (6, 4), (0, 0, 0)).save(folder / "a.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pixels_are_scaled_and_normalised(pictures):
    how = parse_preprocessing("4x6", "0.5,0.25,0", "0.5,0.25,2")
    data = load_calibration(str(pictures), [COLOUR], how)
    assert (data.kind, len(data)) == ("images", 3)
    first, second, third = (feed["image"] for feed in data.feeds())
    np.testing.assert_allclose(first[0, :, 0, 0], [-1, -1, 0])
    np.testing.assert_allclose(second[0, :, 0, 0], [1, -1, 0.1], atol=1e-6)
    np.testing.assert_allclose(third[0, :, 0, 0], [-0.2, 0.6, 0.2], atol=0.03)
    assert second.shape == (1, 3, 4, 6)
    assert second.dtype == np.float32


def test_channels_last(pictures):
    spec = TensorSpec("image", "float32", [1, 4, 6, 3], "nhwc")
    data = load_calibration(str(pictures), [spec], parse_preprocessing("4x6", None, None))
    assert next(data.feeds())["image"].shape == (1, 4, 6, 3)


def test_preprocessing_goes_into_the_manifest(packed, place, pictures):
    how = parse_preprocessing("8", "0.3", "0.2")
    made = packed(models.classifier(place / "m.onnx"), recipe="int8", calibration=str(pictures), preprocessing=how)
    assert made.manifest["preprocessing"] == {
        "size": [8, 8],
        "mean": [0.3],
        "std": [0.2],
        "layout": "nchw",
        "color": "rgb",
    }
    assert made.manifest["calibration"]["kind"] == "images"
    assert made.manifest["calibration"]["samples"] == 3


def test_options_are_parsed():
    assert parse_preprocessing(None, None, None) is None
    assert parse_preprocessing("224", None, "2") == Preprocessing([224, 224], [0.0], [2.0])
    assert parse_preprocessing("224x192", "1,2,3", "4,5,6") == Preprocessing(
        [224, 192], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((None, "0.5", None), "--image-size is missing"),
        (("0", None, None), "not a size"),
        (("8x8x3", None, None), "not a size"),
        (("big", None, None), "not a size"),
        (("8", "half", None), "--image-mean is no list of numbers"),
        (("8", None, "1,0,1"), "--image-std holds 0"),
    ],
)
def test_options_that_are_wrong_are_told(options, told):
    with pytest.raises(UsageError, match=told):
        parse_preprocessing(*options)


def test_pictures_need_their_preprocessing(pictures):
    with pytest.raises(UsageError) as caught:
        load_calibration(str(pictures), [GREY])
    assert "--image-size" in caught.value.fix


@pytest.mark.parametrize("mean", ["1,2", "1,2,3"])
def test_number_of_channels_must_agree(pictures, mean):
    with pytest.raises(UsageError, match="--image-mean holds"):
        load_calibration(str(pictures), [GREY], parse_preprocessing("8", mean, None))


def test_size_must_be_the_models(pictures):
    with pytest.raises(UsageError, match="has the shape"):
        load_calibration(str(pictures), [GREY], parse_preprocessing("16", None, None))


@pytest.mark.parametrize("content", [b"", b"no picture at all", "cut"])
def test_damaged_picture_is_named(pictures, content):
    raw = (pictures / "b.png").read_bytes()[:-30] if content == "cut" else content
    (pictures / "b.png").write_bytes(raw)
    with pytest.raises(UsageError, match="not a readable picture") as caught:
        load_calibration(str(pictures), [GREY], parse_preprocessing("8", None, None))
    assert caught.value.where.endswith("b.png")


def test_folder_without_pictures_is_told(place):
    (place / "nothing").mkdir()
    with pytest.raises(UsageError, match=r"no \.npy and no pictures"):
        load_calibration(str(place / "nothing"), [GREY], parse_preprocessing("8", None, None))


def test_pictures_fit_one_input_only(pictures):
    with pytest.raises(UsageError, match="one 4-D input"):
        load_calibration(str(pictures), [GREY, COLOUR], parse_preprocessing("8", None, None))
