"""Writes the signatures of the TensorRT calls that edgepack makes, read from NVIDIA's real Python bindings.

    python scripts/tensorrt_signatures.py WHEEL [WHEEL ...] --out tests/agent/tensorrt/signatures

A bindings wheel holds no TensorRT: the few C symbols that it links are given by an empty library, compiled here, so that it
imports and its signatures can be read. Nothing is called. The files hold names and signatures of what is used, no more.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# What agent/tensorrt uses, by class.
USED = {
    "ILogger": ["__init__"],
    "Builder": [
        "__init__",
        "create_network",
        "create_builder_config",
        "create_optimization_profile",
        "build_serialized_network",
    ],
    "INetworkDefinition": [],
    "OnnxParser": ["__init__", "parse_from_file", "num_errors", "get_error"],
    "ParserError": ["desc", "node_name", "node_operator"],
    "IBuilderConfig": [
        "set_flag",
        "set_memory_pool_limit",
        "builder_optimization_level",
        "profiling_verbosity",
        "add_optimization_profile",
        "progress_monitor",
        "default_device_type",
        "DLA_core",
    ],
    "IOptimizationProfile": ["set_shape"],
    "IHostMemory": ["nbytes"],
    "IProgressMonitor": ["__init__", "phase_start", "phase_finish", "step_complete"],
    "Runtime": ["__init__", "deserialize_cuda_engine", "DLA_core"],
    "ICudaEngine": [
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_shape",
        "get_tensor_profile_shape",
        "is_shape_inference_io",
        "create_execution_context",
        "create_engine_inspector",
    ],
    "IExecutionContext": [
        "set_input_shape",
        "infer_shapes",
        "get_tensor_shape",
        "set_tensor_address",
        "execute_async_v3",
        "profiler",
    ],
    "IProfiler": ["__init__", "report_layer_time"],
    "EngineInspector": ["get_engine_information"],
}
ENUMS = [
    "NetworkDefinitionCreationFlag",
    "BuilderFlag",
    "DeviceType",
    "MemoryPoolType",
    "ProfilingVerbosity",
    "TensorIOMode",
    "LayerInformationFormat",
    "DataType",
]
_READ = """
import importlib, json, sys
used, enums = json.loads(sys.argv[1])
trt = importlib.import_module(sys.argv[2])
found = {"version": trt.__version__, "classes": {}, "enums": {}}
for name in enums:
    kind = getattr(trt, name, None)
    if kind is not None:
        found["enums"][name] = {key: int(value) for key, value in kind.__members__.items()}
for name, members in used.items():
    kind = getattr(trt, name, None)
    if kind is None:
        continue
    rows = {}
    for member in members:
        value = getattr(kind, member, None)
        if value is None:
            continue
        rows[member] = "property" if isinstance(value, property) else (value.__doc__ or "").splitlines()
    found["classes"][name] = rows
sys.stdout.write(json.dumps(found))
"""
_SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> (.+)$")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for wheel in arguments.wheels:
        found = read(wheel)
        path = arguments.out / f"tensorrt-{'.'.join(found['version'].split('.')[:2])}.json"
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(path)


def read(wheel):
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        module = next(Path(folder).glob("*/tensorrt*.so"))
        libraries = stub(module, Path(folder))
        done = subprocess.run(
            [sys.executable, "-c", _READ, json.dumps([USED, ENUMS]), module.parent.name],
            cwd=folder,
            env={"LD_LIBRARY_PATH": str(libraries), "PATH": "/usr/bin:/bin", "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    for rows in found["classes"].values():
        for member, lines in rows.items():
            if lines != "property":
                plain = [re.sub(r"tensorrt_bindings\.tensorrt\.", "", line.strip()) for line in lines]
                rows[member] = [line for line in plain if _SIGNATURE.match(line) and "*args" not in line]
    return found


def stub(module, folder):
    """An empty library under each name that the module links, with each symbol that it lacks."""
    told = subprocess.run(["readelf", "-d", str(module)], capture_output=True, text=True, check=True).stdout
    needed = [name for name in re.findall(r"Shared library: \[(.*?)\]", told) if name.startswith("libnv")]
    told = subprocess.run(
        ["nm", "-D", "--undefined-only", str(module)], capture_output=True, text=True, check=True
    ).stdout
    # What has a version (name@GLIBC_2.4) comes from the system, Py... from the interpreter.
    names = re.findall(r" U (?!_?Py)(\w+)$", told, re.MULTILINE)
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(set(names))), encoding="utf-8")
    target = folder / "stubs"
    target.mkdir()
    for name in needed:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", str(target / name), str(source)], check=True
        )
    return target


if __name__ == "__main__":
    main()
