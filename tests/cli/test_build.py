"""edgepack build: stdout, exit codes, dry run, project file."""

import json
import os
import subprocess
import sys

import pytest

from tests.packager import models

KEYS = {"bundle", "digest", "target", "runtime", "recipe", "size_bytes", "model_file", "steps", "findings"}


def test_json_is_the_only_thing_on_stdout(edgepack, model, npz):
    done = edgepack("build", "tiny.onnx", "--target", "raspberry-pi-5", "--calibration", "samples.npz", "--json")
    assert done.status == 0
    assert set(done.json) >= KEYS
    assert (done.json["target"], done.json["recipe"]) == ("raspberry-pi-5", "int8")
    assert (npz.parent / done.json["bundle"]).stat().st_size == done.json["size_bytes"]
    assert "edgepack: reading the model" in done.err


def test_people_are_told_in_lines(edgepack, model):
    done = edgepack("build", "tiny.onnx", "-t", "raspberry-pi-4", "-r", "fp16", "-o", "here.edgepack")
    assert done.status == 0
    assert done.out.startswith("here.edgepack  ")
    assert "onnxruntime fp16" in done.out
    assert "warning: " in done.out
    assert "half-precision" in done.out


def test_short_and_long_options_are_the_same(edgepack, model, npz):
    one = edgepack("build", "tiny.onnx", "-t", "linux-x86-64", "-r", "int8", "-c", "samples.npz", "-o", "1.edgepack")
    two = edgepack("build", "tiny.onnx", "--target", "linux-x86-64", "--runtime", "onnxruntime", "--recipe", "int8",
                   "--calibration", "samples.npz", "--output", "2.edgepack")  # fmt: skip
    assert (one.status, two.status) == (0, 0)
    assert (npz.parent / "1.edgepack").read_bytes() == (npz.parent / "2.edgepack").read_bytes()


def test_dry_run_prints_the_plan_and_writes_nothing(edgepack, model, npz, place):
    before = sorted(place.iterdir())
    arguments = ["build", "tiny.onnx", "-t", "raspberry-pi-5", "-c", "samples.npz", "--dry-run"]
    told, document = edgepack(*arguments), edgepack(*arguments, "--json").json
    assert told.status == 0
    assert "quantize_static" in told.out
    assert document["output"] == "tiny-raspberry-pi-5.edgepack"
    assert [step["name"] for step in document["steps"]] == ["quantize_static"]
    assert document["steps"][0]["options"]["weight_type"] == "int8"
    assert sorted(place.iterdir()) == before


def test_dry_run_of_nothing_to_do(edgepack, model):
    done = edgepack("build", "tiny.onnx", "-t", "linux-x86-64", "-r", "fp32", "--dry-run")
    assert "nothing to convert" in done.out


def test_dry_run_fails_like_the_build(edgepack, model):
    done = edgepack("build", "tiny.onnx", "-t", "raspberry-pi-5", "--dry-run")
    assert (done.status, done.out) == (2, "")
    assert "--calibration" in done.err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["tiny.onnx", "-t", "linux-x86-64", "-r", "fp32"], 0),
        (["tiny.onnx", "-t", "no-such-board"], 2),
        (["tiny.onnx"], 2),
        ([], 2),
        (["-t", "linux-x86-64"], 2),
        (["nothing.onnx", "-t", "linux-x86-64"], 2),
        (["tiny.onnx", "-t", "linux-x86-64", "-r", "int8-dynamic", "--shape", "image=1x1x8x8"], 0),
        (["tiny.onnx", "-t", "linux-x86-64", "--runtime", "onnxruntime", "-r", "int16x8"], 3),
        (["tiny.onnx", "-t", "linux-x86-64", "--no-such-option"], 2),
        (["tiny.onnx", "-t", "linux-x86-64", "-r", "fp32", "--shape", "image=2x1x8x8"], 2),
        (["tiny.onnx", "-t", "linux-x86-64", "-r", "fp32", "--image-mean", "1"], 2),
    ],
)
def test_exit_codes(edgepack, model, arguments, status):
    done = edgepack("build", *arguments)
    assert done.status == status
    assert bool(done.err)
    assert "Traceback" not in done.err


def test_free_dimension_can_be_fixed(edgepack, place):
    models.classifier(place / "free.onnx", batch="n")
    done = edgepack("build", "free.onnx", "-t", "linux-x86-64", "-r", "fp32", "--shape", "image=4x1x8x8", "--json")
    assert done.json["steps"][0] == {**done.json["steps"][0], "name": "fix_shapes", "options": {"image": "4x1x8x8"}}


def test_random_calibration_stands_in_the_output(edgepack, model):
    done = edgepack("build", "tiny.onnx", "-t", "raspberry-pi-5", "-c", "random")
    assert done.status == 0
    assert "random data" in done.out


def test_own_profile_is_a_path(edgepack, model, place):
    target = models.profile(place, name="my-board")
    done = edgepack("build", "tiny.onnx", "-t", target, "-r", "fp32", "--json")
    assert (done.status, done.json["target"]) == (0, "my-board")
    assert done.json["bundle"] == "tiny-my-board.edgepack"


def test_project_file_makes_arguments_unneeded(edgepack, model, npz, place):
    (place / "edgepack.toml").write_text(
        'model = "tiny.onnx"\ntarget = "linux-x86-64"\ncalibration = "samples.npz"\n'
        '[targets.linux-x86-64]\nrecipe = "int8-dynamic"\n'
    )
    assert edgepack("build", "--json").json["recipe"] == "int8-dynamic"
    other = edgepack("build", "--target", "jetson-orin", "--runtime", "onnxruntime", "--recipe", "int8", "--json")
    assert (other.json["target"], other.json["recipe"]) == ("jetson-orin", "int8")
    assert edgepack("build", "-r", "fp32", "--json").json["recipe"] == "fp32"


def test_the_command_in_a_process_of_its_own(model, place):
    argv = [sys.executable, "-m", "packager", "build", "tiny.onnx", "-t", "linux-x86-64", "-r", "fp32", "--json"]
    done = subprocess.run(argv, cwd=place, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) >= KEYS
