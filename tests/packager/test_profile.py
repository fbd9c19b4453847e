"""Profiles: those that are shipped, and forms filled in wrongly, each named by its fault."""

import json
import re
from importlib.resources import files

import pytest

from agent.contract.errors import ContractError, UsageError
from agent.probes import cpu as probe
from packager import profile as profiles
from packager.onnx_versions import limits
from packager.profile import Profile, describe, load_profile, profile_names
from packager.units import parse_bytes

BOARD = """
schema = "edgepack.profile/1"
name = "my-board"
title = "My board"
kind = "linux-board"

[cpu]
arch = "aarch64"
model = "Cortex-A72"
cores = 4
clock = "1.5 GHz"
features = ["neon"]

[memory]
ram = "2 GiB"

[os]
name = "Debian 12"
python = "3.11"
glibc = "2.36"

[default]
runtime = "onnxruntime"
recipe = "int8"

[int8]
weight_type = "int8"

[runtimes.onnxruntime]
version = "1.32.0"

[runtimes.tensorrt]
version = "10.3.0"
max_opset = 20
options = { workspace = "1 GiB" }
"""
JETSONS = [name for name in profile_names() if name.startswith("jetson-")]
MICROCONTROLLERS = ["cortex-m4", "cortex-m7", "cortex-m55", "esp32-s3", "arduino-nano-33-ble", "raspberry-pi-pico"]
# The runtimes and recipes that the product is made of (DESIGN.md, "Layout"; the issues, "Recipes").
RUNTIMES = {"onnxruntime", "tflite", "tflite_micro", "pytorch_lite", "executorch", "tensorrt"}
RECIPES = {"fp32", "fp16", "int8", "int8-dynamic"}


@pytest.fixture
def write(tmp_path):
    def written(text, name="my-board"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return written


@pytest.fixture
def refused(write):
    def error_of(old, new):
        assert old in BOARD
        path = write(BOARD.replace(old, new))
        with pytest.raises(ContractError) as caught:
            load_profile(path)
        assert caught.value.where == path
        return caught.value

    return error_of


# --- the shipped ones


def test_there_are_many_kinds_of_device():
    assert len(profile_names()) >= 26
    assert {load_profile(name).kind for name in profile_names()} == set(profiles.KINDS)


@pytest.mark.parametrize("name", profile_names())
def test_a_shipped_profile_is_consistent(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.title
    assert profile.default.runtime in profile.runtimes
    assert set(profile.runtimes) <= RUNTIMES
    assert profile.default.recipe in RECIPES
    assert profile.memory.ram_bytes > 0
    assert (profile.gpu is not None) == (profile.kind == "jetson")
    assert (profile.os is None) == (profile.kind == "microcontroller")
    assert bool(profile.memory.flash_bytes) == (profile.kind == "microcontroller")
    assert (profile.int8.scope == "all") == (profile.kind == "microcontroller")


@pytest.mark.parametrize("name", profile_names())
def test_a_shipped_profile_names_its_sources(name):
    first = files("profiles").joinpath(f"{name}.toml").read_text(encoding="utf-8").partition("schema")[0]
    assert re.search(r'^# .*"', first, re.MULTILINE), "the comment on top names no document"


@pytest.mark.parametrize("name", profile_names())
def test_its_runtime_versions_have_known_limits(name):
    profile = load_profile(name)
    if "onnxruntime" in profile.runtimes:
        assert limits(profile.runtime("onnxruntime").version).known
        assert profile.os.python
    if "tflite" in profile.runtimes and profile.kind != "android":
        assert profile.runtime("tflite").options["distribution"] in {"ai-edge-litert", "tflite-runtime"}


@pytest.mark.parametrize("name", JETSONS)
def test_a_jetson_knows_its_tensorrt(name):
    entry = load_profile(name).runtime("tensorrt")
    assert {"jetpack", "l4t", "cuda", "workspace"} == set(entry.options)
    assert parse_bytes(entry.options["workspace"]) <= load_profile(name).memory.ram_bytes / 4
    assert entry.max_opset == (17 if entry.version.startswith("8.") else 20)


@pytest.mark.parametrize("name", MICROCONTROLLERS)
def test_a_microcontroller_is_int8_through_and_through(name):
    profile = load_profile(name)
    assert (profile.default.runtime, profile.default.recipe) == ("tflite_micro", "int8")


def test_cores_without_dot_product_do_not_claim_it():
    for name in ("raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-zero-2-w", "imx8m-plus", "jetson-xavier-nx"):
        assert "dotprod" not in load_profile(name).cpu.features, name
    for name in ("raspberry-pi-5", "rock-5b", "jetson-orin"):
        assert {"dotprod", "fp16"} <= set(load_profile(name).cpu.features), name


def test_a_processor_that_saturates_gets_unsigned_weights():
    for name in profile_names():
        profile = load_profile(name)
        if profile.cpu.arch == "x86_64":
            signed = "vnni" in profile.cpu.features
            assert profile.int8.weight_type == ("int8" if signed else "uint8"), name


def test_features_of_linux_machines_are_those_that_the_agent_can_see():
    seen = set(probe._FEATURES.values())
    for arch in ("x86_64", "aarch64", "armv7l"):
        assert set(profiles.CPU_FEATURES[arch]) <= seen


def test_describe_is_json_with_quantities_as_numbers():
    document = json.loads(json.dumps(describe(load_profile("raspberry-pi-5"))))
    assert document["memory"] == {"ram": "8 GiB", "ram_bytes": 8 * 1024**3}
    assert document["cpu"]["clock_hz"] == 2_400_000_000
    assert document["runtimes"]["onnxruntime"] == {"version": "1.32.0"}
    assert "gpu" not in document
    assert describe(load_profile("cortex-m4"))["memory"]["flash_bytes"] == 1 << 20


# --- one's own


def test_a_path_to_ones_own(write):
    profile = load_profile(write(BOARD))
    assert isinstance(profile, Profile)
    assert profile.cpu.features == ("neon",)
    assert profile.int8.scope == "compute"
    assert profile.runtime("tensorrt").options == {"workspace": "1 GiB"}


def test_the_lower_opset_cap_counts(write):
    profile = load_profile(write(BOARD))
    assert profile.opset_cap("onnxruntime") is None
    assert profile.opset_cap("tensorrt") == 20
    capped = load_profile(write(BOARD.replace('kind = "linux-board"', 'kind = "linux-board"\nmax_opset = 17')))
    assert capped.opset_cap("tensorrt") == 17
    assert capped.opset_cap("onnxruntime") == 17


def test_runtime_that_the_device_has_not(write):
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'") as caught:
        load_profile(write(BOARD)).runtime("onnx")
    assert "my-board" in caught.value.what


# --- faults


def test_unknown_name_lists_the_near_one():
    with pytest.raises(UsageError, match="did you mean 'raspberry-pi-5'") as caught:
        load_profile("rasberry-pi5")
    assert "cortex-m4" in caught.value.expected
    assert caught.value.exit_code == 2


def test_empty_name():
    with pytest.raises(UsageError, match="unknown profile ''"):
        load_profile("")


def test_missing_file(tmp_path):
    path = str(tmp_path / "gone.toml")
    with pytest.raises(UsageError, match="cannot read the profile") as caught:
        load_profile(path)
    assert caught.value.where == path


def test_a_folder(tmp_path):
    with pytest.raises(UsageError, match="cannot read the profile"):
        load_profile(f"{tmp_path}/")


def test_not_toml(write):
    with pytest.raises(ContractError, match="not a TOML document") as caught:
        load_profile(write("name = "))
    assert caught.value.where.endswith("my-board.toml")


def test_not_text(tmp_path):
    path = tmp_path / "my-board.toml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ContractError, match="not a TOML document"):
        load_profile(str(path))


def test_nested_without_end(write):
    with pytest.raises(ContractError, match="not a TOML document"):
        load_profile(write("a = " + "[" * 100_000))


def test_unknown_key_suggests_the_near_one(refused):
    error = refused('clock = "1.5 GHz"', 'clocks = "1.5 GHz"')
    assert error.what == "$.cpu: unknown key 'clocks' (did you mean 'clock'?)"


def test_missing_key(refused):
    assert "$: missing key 'title'" in refused('title = "My board"\n', "").what


def test_missing_schema(refused):
    assert "edgepack.profile/1" in refused('schema = "edgepack.profile/1"\n', "").expected


def test_schema_of_a_newer_edgepack(refused):
    error = refused("edgepack.profile/1", "edgepack.profile/2")
    assert "'edgepack.profile/2'" in error.what
    assert "update edgepack" in error.fix


def test_wrong_type(refused):
    assert "$.cpu.cores: expected int, got str '4'" in refused("cores = 4", 'cores = "4"').what


def test_wrong_unit(refused):
    error = refused('ram = "2 GiB"', 'ram = "2 GHz"')
    assert error.what.startswith("$.memory.ram: 'GHz' is not a unit of a size")
    assert '"8 GiB"' in error.expected


def test_no_unit(refused):
    error = refused('ram = "2 GiB"', 'ram = "2"')
    assert error.what.startswith("$.memory.ram: ")
    assert error.code == "no-unit"


def test_bare_number_for_a_size(refused):
    assert "$.memory.ram: expected str, got int 2" in refused('ram = "2 GiB"', "ram = 2").what


def test_size_for_a_frequency(refused):
    assert refused("1.5 GHz", "1.5 GiB").what.startswith("$.cpu.clock: 'GiB'")


def test_unknown_feature(refused):
    error = refused('"neon"', '"neon", "dotprd"')
    assert error.what == "$.cpu.features[1]: unknown feature of aarch64 'dotprd' (did you mean 'dotprod'?)"


def test_feature_of_another_architecture(refused):
    error = refused('"neon"', '"avx2"')
    assert "unknown feature of aarch64 'avx2'" in error.what
    assert "dotprod" in error.expected


def test_unknown_architecture(refused):
    assert "(did you mean 'aarch64'?)" in refused('arch = "aarch64"', 'arch = "arm64"').what


def test_unknown_kind(refused):
    assert "$.kind: unknown kind 'board'" in refused("linux-board", "board").what


def test_name_is_not_the_files(refused):
    error = refused('name = "my-board"', 'name = "your-board"')
    assert error.what.startswith("$.name: 'your-board'")
    assert "my-board.toml" in error.expected


def test_name_with_a_space(write):
    with pytest.raises(ContractError, match=r"\$.name: 'my board' does not fit"):
        load_profile(write(BOARD.replace('"my-board"', '"my board"'), name="my board"))


def test_default_runtime_that_is_not_listed(refused):
    error = refused('runtime = "onnxruntime"', 'runtime = "onnxruntme"')
    assert error.what.startswith("$.default.runtime: ")
    assert "did you mean 'onnxruntime'?" in error.what


def test_runtime_version_as_a_number(refused):
    assert "$.runtimes.onnxruntime.version: expected str" in refused('version = "1.32.0"', "version = 1.32").what


def test_runtime_version_as_a_range(refused):
    assert '"1.32.0"' in refused('version = "1.32.0"', 'version = ">=1.20"').expected


def test_a_date_in_a_runtimes_options(refused):
    error = refused('workspace = "1 GiB"', "workspace = 2025-01-01")
    assert error.what.startswith("$.runtimes.tensorrt.options.workspace: ")


def test_not_a_number_in_a_runtimes_options(refused):
    assert refused('workspace = "1 GiB"', "workspace = nan").code == "wrong-type"


def test_no_cores(refused):
    assert refused("cores = 4", "cores = 0").code == "out-of-range"


def test_clusters_that_do_not_add_up(refused):
    clusters = '[[cpu.clusters]]\nmodel = "Cortex-A76"\ncores = 3\n\n[memory]'
    assert "have 3 cores together" in refused("[memory]", clusters).what


def test_unknown_weight_type(refused):
    assert "$.int8.weight_type: unknown type 'int4'" in refused('weight_type = "int8"', 'weight_type = "int4"').what


def test_opset_below_what_edgepack_makes(refused):
    assert refused("max_opset = 20", "max_opset = 11").what.startswith("$.runtimes.tensorrt.max_opset: ")
