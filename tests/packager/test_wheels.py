"""Wheels for another machine: what each system takes, and what there is none of."""

import pytest

from agent.contract.errors import DeviceError
from packager.wheels import download, platforms


def test_a_system_takes_wheels_of_its_glibc_and_older():
    tags = platforms("aarch64", "2.28")
    assert tags[0] == "manylinux_2_28_aarch64"
    assert "manylinux2014_aarch64" in tags
    assert "manylinux_2_31_aarch64" not in tags


def test_32_bit_arm_is_told_that_pypi_has_no_numpy():
    with pytest.raises(DeviceError, match="no wheels for armv7l") as caught:
        platforms("armv7l", "2.36")
    assert "python3-numpy" in caught.value.fix


def test_another_c_library_is_told():
    with pytest.raises(DeviceError, match="not glibc"):
        platforms("aarch64", "")


@pytest.mark.device
def test_an_old_system_gets_older_wheels(tmp_path):
    # glibc 2.17 and Python 3.8: CentOS 7's, JetPack 5's. Wheels of today do not load there.
    names = [path.name for path in download(tmp_path, ["numpy", "onnxruntime"], "aarch64", "3.8", "2.27")]
    (version,) = [name.split("-")[1] for name in names if name.startswith("onnxruntime-")]
    assert tuple(map(int, version.split(".")[:2])) <= (1, 19)


@pytest.mark.device
def test_a_package_that_has_no_wheel_is_an_error_in_words(tmp_path):
    with pytest.raises(DeviceError, match=r"no wheels of onnxruntime for Python 2\.7"):
        download(tmp_path, ["onnxruntime"], "aarch64", "2.7", "2.36")
