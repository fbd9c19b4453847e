import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.tensorrt.cudart import Cudart


@pytest.fixture(scope="session")
def stub_path(tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    path = tmp_path_factory.mktemp("stub") / "libcudart_stub.so"
    source = Path(__file__).parent / "cudart_stub.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    return path


@pytest.fixture
def stub(stub_path):
    """The C stub, with no failure set; `live` counts what was not freed."""
    library = ctypes.CDLL(str(stub_path))
    library.stub_live.restype = ctypes.c_long
    library.stub_fail.argtypes = [ctypes.c_char_p, ctypes.c_long]
    library.stub_fail(None, 0)
    before = library.stub_live()
    library.live = lambda: library.stub_live() - before
    yield library
    library.stub_fail(None, 0)


@pytest.fixture
def cuda(stub, stub_path):
    return Cudart(str(stub_path))
