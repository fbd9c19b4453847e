"""--shape: how it is read, and what it must agree with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.errors import UsageError
from agent.contract.manifest import TensorSpec
from packager.shapes import check_shapes, parse_shapes, show

IMAGE = TensorSpec("image", "float32", ["n", 3, 224, 224])


@given(st.lists(st.integers(1, 4096), min_size=1, max_size=6))
def test_numbers_come_back(sizes):
    assert parse_shapes([f"image={show(sizes)}"]) == {"image": tuple(sizes)}


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("x=batchx3x224x224", ("batch", 3, 224, 224)),
        ("x=1,3,8", (1, 3, 8)),
        ("x=batch,max_len,8", ("batch", "max_len", 8)),
        ("x=nx1x28x28", ("n", 1, 28, 28)),
        ("x=4", (4,)),
    ],
)
def test_free_dimensions_have_names(text, shape):
    assert parse_shapes([text]) == {"x": shape}


def test_names_may_hold_signs_of_their_own():
    assert parse_shapes(["serving_default:a=b=1x2", "x=3"]) == {"serving_default:a=b": (1, 2), "x": (3,)}


@pytest.mark.parametrize("text", ["", "x", "x=", "=1x3", "x=1xx3", "x=1x-3", "x=1x0x3", "x=1.5", "x=1x3x", "x=1 x 3"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_shapes([text])
    assert caught.value.code == "bad-shape"


def test_free_dimensions_take_any_size():
    check_shapes({"image": (4, 3, 224, 224)}, [IMAGE])
    check_shapes({"image": ("batch", 3, 224, 224)}, [IMAGE])


@pytest.mark.parametrize("shape", [(1, 3, 224), (1, 1, 224, 224), (1, "c", 224, 224)])
def test_fixed_dimensions_must_agree(shape):
    with pytest.raises(UsageError, match="does not fit the model") as caught:
        check_shapes({"image": shape}, [IMAGE])
    assert caught.value.expected == "image has 4 dimensions: n, 3, 224, 224 (a name stands for any size)"
    assert "--shape image=Nx3x224x224" in caught.value.fix


def test_export_can_free_a_dimension():
    check_shapes({"image": (1, "c", 224, 224)}, [IMAGE], may_free=True)


def test_unknown_input_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'image'"):
        check_shapes({"imgae": (1, 3, 224, 224)}, [IMAGE])
