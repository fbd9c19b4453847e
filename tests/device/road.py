"""The road as a user goes it: the command line, a bundle of a real model, and a device's interpreter with the runtime."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

from agent.contract import codec
from agent.contract.manifest import MANIFEST_NAME, Manifest, manifest_digest
from packager import demo_data
from packager.bundle.write import write_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = Path(demo_data.__file__).parent / "fashion-cnn.onnx"
TARGET = {"aarch64": "linux-arm64", "x86_64": "linux-x86-64"}.get(platform.machine(), "linux-x86-64")
PACKAGES = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf")
COMMAND_SECONDS = 240  # longer than any command here takes on a loaded machine


class CommandLine:
    """The command `edgepack` for one user; `home` is that user's HOME, `within` what the command line is put behind."""

    within = ()

    def __init__(self, home):
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "EDGEPACK_", "SSH_"))}
        self.environment = {**kept, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"}
        self._started = []

    def __call__(self, *arguments, code=0):
        """Runs to the end; the exit code must be `code`, and no traceback is ever shown."""
        done = subprocess.run(
            self._argv(arguments),
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr}"
        return done

    def json(self, *arguments, code=0):
        """The document that the command prints with --json."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def start(self, *arguments):
        """Starts a command and lets it run; it is killed at the end of the test if it still does."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            self._argv(arguments),
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
        )
        self._started.append(process)
        return process

    def close(self):
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def _argv(self, arguments):
        return [*self.within, sys.executable, "-m", "packager", *map(str, arguments)]


def read_until(process, text):
    """Reads the command's stderr up to a line with `text`; what was read."""
    seen = []
    for raw in process.stderr:
        seen.append(raw.decode())
        if text in seen[-1]:
            return "".join(seen)
    raise AssertionError(f"it ended without saying {text!r}:\n{''.join(seen)}")


def finish(process):
    """The exit code, stdout and the rest of stderr."""
    out, talk = process.communicate(timeout=COMMAND_SECONDS)
    assert b"Traceback" not in talk, talk.decode()
    return process.returncode, out.decode(), talk.decode()


def wait_for(condition, what, seconds=60):
    """Waits until `condition()` holds; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


class Interpreters:
    """Virtual environments that a device's user may run, each with the packages asked for."""

    def __init__(self, user):
        self._user = user
        self._folder = Path(tempfile.mkdtemp(prefix="edgepack-python-"))
        self._folder.chmod(0o755)
        self._made = {}
        self.base = self._find_base()

    def __call__(self, *packages):
        """The path of an interpreter with `packages` (and nothing else)."""
        if packages not in self._made:
            folder = self._folder / f"env{len(self._made)}"
            subprocess.run([self.base, "-m", "venv", "--without-pip", str(folder)], check=True)
            place = next(folder.glob("lib/python3.*/site-packages"))
            for name in packages:
                self._provide(name, place)
            self._made[packages] = str(folder / "bin" / "python")
        return self._made[packages]

    def script(self, name, text):
        """A program of that name and text, to be given as an interpreter."""
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def runs(self, path):
        """Whether the device's user may run it."""
        argv = [path, "-I", "-c", "import json"]
        try:
            return subprocess.run(argv, capture_output=True, check=False, cwd="/", **self._as_user()).returncode == 0
        except OSError:
            return False

    def copy(self, prefix):
        """A copy of a whole Python that lies where the device's user cannot look; the path of its interpreter."""
        target = self._folder / Path(prefix).name
        if not target.exists():
            skip = shutil.ignore_patterns("__pycache__", "test", "idlelib", "site-packages", "*.a", "share", "include")
            shutil.copytree(prefix, target, symlinks=True, ignore=skip)
        # Its libraries are looked for where it was built, which may be just where the user cannot look.
        text = f'#!/bin/sh\nexport LD_LIBRARY_PATH={target}/lib\nexec {target}/bin/python3 "$@"\n'
        return self.script(f"python-{target.name}", text)

    def remove(self):
        shutil.rmtree(self._folder, ignore_errors=True)

    def _as_user(self):
        return {"user": self._user} if os.geteuid() == 0 else {}

    def _find_base(self):
        minor = f"python3.{sys.version_info[1]}"
        known = [str(Path(sys.base_prefix) / "bin" / minor), f"/usr/bin/{minor}", f"/usr/local/bin/{minor}"]
        for path in known:
            if self.runs(path):
                return path
        return self.copy(sys.base_prefix)

    def _provide(self, name, place):
        """Links where the device's user may follow them, copies where not."""
        source = Path(metadata.distribution(name).locate_file(""))
        tops = {Path(file).parts[0] for file in metadata.distribution(name).files if ".." not in Path(file).parts}
        for top in tops - {"__pycache__"}:
            if all(parent.stat().st_mode & 0o001 for parent in (source / top).resolve().parents):
                (place / top).symlink_to(source / top)
            elif (source / top).is_dir():
                shutil.copytree(source / top, place / top, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source / top, place / top)


def opened(bundle):
    """Manifest and files of a bundle."""
    with zipfile.ZipFile(bundle) as archive:
        manifest = codec.loads(Manifest, archive.read(MANIFEST_NAME))
        return manifest, {name: archive.read(name) for name in archive.namelist() if name != MANIFEST_NAME}


def remade(bundle, target, change):
    """The bundle again with its manifest changed by `change`, digests right: a bundle that asks for other things."""
    manifest, contents = opened(bundle)
    write_bundle(target, change(manifest), contents)
    return target


def with_file(bundle, target, data):
    """The bundle again with one file more."""
    manifest, contents = opened(bundle)
    write_bundle(target, manifest, {**contents, "extra/padding.bin": data})
    return target


def digest_of(bundle):
    with zipfile.ZipFile(bundle) as archive:
        return manifest_digest(archive.read(MANIFEST_NAME))


def half_written(root):
    """What must never be left in edgepack's folder on a device."""
    left = [
        str(path) for path in root.rglob("*") if path.name.endswith(".part") or path.name.startswith((".part", ".gone"))
    ]
    # What has arrived of a file (its sha256 and .part) is kept on purpose: the next push goes on from there.
    left = [path for path in left if not re.fullmatch(r"[0-9a-f]{64}\.part", Path(path).name)]
    incoming = (root / "incoming").glob("*")
    return left + [str(path) for path in incoming if not re.fullmatch(r"[0-9a-f]{64}\.part", path.name)]


def commands_of(pid):
    """The command line of a process, empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def agents(root, child=False):
    """Pids of the agent's processes that were started from this folder; the measuring children only, or those without."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        line = commands_of(entry.name)
        if f"{root}/agent/agent-" in line and (" _child " in line) == child and " -c " not in line:
            found.append(int(entry.name))
    return found


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
