"""Heavy libraries are imported inside functions: a command costs what it uses, and nothing more need be installed."""

import json
import sys
from pathlib import Path

import pytest

from tests.house.repository import ROOT, heavy, modules, python, settings

# Every heavy library is made impossible to import; each module is then imported, and those that fail are told.
_IMPORT_WITHOUT = """
import importlib, json, sys

class Blocked:
    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError("blocked: " + name)

names, blocked, place = json.loads(sys.argv[1])
sys.path.insert(0, place)
sys.meta_path.insert(0, Blocked(blocked))
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


def import_without(names, blocked, *options):
    done = python(*options, "-c", _IMPORT_WITHOUT, json.dumps([names, sorted(blocked), str(ROOT)]))
    return json.loads(done.stdout)


def imported(*arguments):
    """The top-level modules that a run of this interpreter imports, as it says itself."""
    told = python("-X", "importtime", *arguments).stderr
    lines = [line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")]
    assert lines
    return {name.partition(".")[0] for name in lines}


def command():
    """What starts edgepack: the installed command, or the module where this environment has no command."""
    script = Path(sys.executable).with_name("edgepack")
    return [str(script)] if script.exists() else ["-m", "packager"]


def test_every_module_imports_without_any_heavy_library():
    assert import_without(modules("packager", "targets"), heavy()) == {}


def test_every_module_of_the_agent_imports_on_the_standard_library_alone():
    assert import_without(modules("agent"), heavy(), "-I", "-S") == {}


def test_the_block_really_blocks():
    assert "blocked" in import_without(["numpy"], {"numpy"})["numpy"]


def test_importing_the_library_loads_nothing_heavy():
    loaded = imported("-c", "import packager")
    assert "packager" in loaded
    assert not loaded & (heavy() | {"click", "platformdirs"})


def test_help_loads_nothing_heavy():
    assert not imported(*command(), "--help") & heavy()


COMMANDS = sorted(path.stem for path in (ROOT / "packager/cli").glob("[!_]*.py") if path.stem != "main")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_loads_nothing_heavy(name):
    assert not imported(*command(), name, "--help") & heavy()


def test_the_command_is_the_one_that_pyproject_names():
    module, _, function = settings()["project"]["scripts"]["edgepack"].partition(":")
    python("-c", f"from {module} import {function}; assert callable({function})")
