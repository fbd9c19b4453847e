"""The command's door: help, version, completion, unknown verbs, bugs."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from packager.cli import main
from packager.version import __version__

VERBS = {"build", "inspect", "verify", "unpack", "push", "bench", "profiles", "runtimes", "devices", "results", "init",
         "demo", "completion"}  # fmt: skip


def test_help_lists_every_verb(edgepack):
    done = edgepack("--help")
    assert done.status == 0
    assert {line.split()[0] for line in done.out.splitlines() if line.startswith("  ") and line.split()} >= VERBS


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(edgepack, verb):
    done = edgepack(verb, "--help")
    assert done.status == 0
    assert done.out.startswith(f"Usage: edgepack {verb}")
    assert (done.err, edgepack(verb, "-h").out) == ("", done.out)


def commands(group, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


# What gives no data: it writes a file or a registration, or its text is meant for a shell.
_WITHOUT_JSON = {
    *{("completion",), ("init",)},
    *{("devices", "add"), ("devices", "remove"), ("devices", "stop")},
    *{("toolchain", "install"), ("toolchain", "remove")},
    *{("results", "export"), ("results", "baseline", "remove")},
}


def test_whatever_returns_data_has_json():
    found = {
        path: {option for one in command.params for option in one.opts} for path, command in commands(main.edgepack)
    }
    without = {path for path, options in found.items() if "--json" not in options}
    assert without <= _WITHOUT_JSON


def test_every_option_has_help():
    silent = [
        (path, option.name)
        for path, command in commands(main.edgepack)
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


def test_version(edgepack):
    assert edgepack("--version").out == f"edgepack {__version__}\n"


def test_unknown_verb_is_answered_with_the_nearest(edgepack):
    done = edgepack("biuld", "m.onnx")
    assert (done.status, done.out) == (2, "")
    assert "Did you mean 'build'?" in done.err


def test_no_verb_shows_help(edgepack):
    done = edgepack()
    assert done.status == 2
    assert "Usage: edgepack" in done.out + done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(edgepack, shell):
    done = edgepack("completion", shell)
    assert (done.status, done.err) == (0, "")
    assert "_EDGEPACK_COMPLETE" in done.out
    assert edgepack("completion", "tcsh").status == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("edgepack bui", "build"),
        ("edgepack build m.onnx --target raspberry-pi-", "raspberry-pi-5"),
        ("edgepack build m.onnx --recipe int8-", "int8-dynamic"),
        ("edgepack build m.onnx --runtime onn", "onnxruntime"),
        ("edgepack bench b.edgepack loc", "local"),
        ("edgepack profiles show jets", "jetson-orin"),
    ],
)
def test_shell_completes(place, words, expected):
    count = len(words.split()) - 1
    environment = {"_EDGEPACK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = CliRunner().invoke(main.edgepack, prog_name="edgepack", env=environment)
    assert expected in [line.partition(",")[2] for line in done.output.splitlines()]


def test_a_bug_is_told_as_one(edgepack, model, monkeypatch):
    from packager import pipeline

    def broken(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(pipeline, "run", broken)
    done = edgepack("build", "tiny.onnx", "-t", "linux-x86-64")
    assert (done.status, done.out) == (1, "")
    assert "this is a bug: ZeroDivisionError" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("EDGEPACK_DEBUG", "1")
    assert "Traceback" in edgepack("build", "tiny.onnx", "-t", "linux-x86-64").err


def test_a_reader_that_has_seen_enough_is_no_error(place):
    code = 'edgepack() { %s -m packager "$@"; }; edgepack profiles list --json | head -c 10; echo ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", code % sys.executable],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("0\n")
    assert done.stderr == ""
