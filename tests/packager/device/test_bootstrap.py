"""The programs that run before the agent is there, on every Python that is installed, and answers that are not theirs."""

import ast
import os
import shutil
import sys
from pathlib import Path

import pytest

from agent.contract.errors import DeviceError
from packager.device import bootstrap
from packager.device.local import LocalTransport
from packager.device.transport import Completed


def pythons():
    """Every other Python that this machine has, from 3.4 on."""
    found = {os.path.realpath(sys.executable)}
    for minor in range(4, 30):
        path = shutil.which(f"python3.{minor}")
        if path and "shims" not in path:
            found.add(path)
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found |= {str(path) for path in versions.glob("3.*/bin/python3")}
    return sorted(found)


@pytest.mark.parametrize("name", ["PUT", "GET", "HELLO"])
def test_syntax_of_an_old_python(name):
    ast.parse(getattr(bootstrap, name), feature_version=(3, 4))


@pytest.mark.parametrize("python", pythons())
def test_on_a_real_python(python, tmp_path):
    transport = LocalTransport(python)
    if transport.run([python, "-c", ""]).status:
        pytest.skip("it does not start")
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 3000)
    transport.put(source, str(tmp_path / "a/b/target"))
    transport.get(str(tmp_path / "a/b/target"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    said = bootstrap.hello(transport, python, [str(source), "/nothing/there"])
    assert said["python"][0] == 3
    assert said["paths"][str(source)] == {"path": str(source), "exists": True}
    assert said["paths"]["/nothing/there"]["exists"] is False


class Answering:
    """A device that says what it is told to."""

    name = "liar"

    def __init__(self, stdout, status=0):
        self.done = Completed(status, stdout, b"some\x1b[31m talk")

    def run(self, _argv, **_):
        return self.done


@pytest.mark.parametrize(
    "stdout",
    [b"", b"{", b"[]", b"{}", b'{"python": 3}', b'{"python": [3, 8, true], "executable": "", "home": "", "paths": {}}',
     b'{"python": [3, 8, 1], "executable": "", "home": "", "paths": {"/x": {"path": 1, "exists": true}}}',
     b'{"python": [3, 8, 1], "executable": "", "home": "", "paths": {}}', b'{"error": ["x"]}', b"{" + b"[" * 100000],
)  # fmt: skip
def test_hello_of_a_liar(stdout):
    with pytest.raises(DeviceError) as caught:
        bootstrap.hello(Answering(stdout), "python3", ["/x"])
    assert len(str(caught.value)) < 3000
    assert "\x1b" not in str(caught.value)


def test_error_of_an_unknown_code_is_a_device_error():
    with pytest.raises(DeviceError) as caught:
        bootstrap.parse_reply(b'{"error": "\\u001b[2J", "message": "\\u001b[2Jx"}', "liar")
    assert caught.value.code == "device-io"
    assert "\x1b" not in str(caught.value)
