"""An aarch64 Debian machine's image: kernel, initrd and disk, built once for each recipe and kept in a cache."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from agent.contract import codec
from agent.contract.errors import ContractError
from agent.contract.finding import INFO, WARNING, Finding
from packager.emulate import debian, kernel, rootfs, wheels
from packager.emulate.tools import Progress, need_packages, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUILDER = 2  # raise it when the same recipe comes to mean another image
RUNTIMES = ("numpy==2.4.6", "onnxruntime==1.32.0", "ai-edge-litert==2.3.0")
# fmt: off
PACKAGES = (
    "base-files", "base-passwd", "bash", "busybox-static", "coreutils", "dash", "findutils", "grep", "gzip",
    "hostname", "iproute2", "libc-bin", "libgcc-s1", "libstdc++6", "login", "mawk", "openssh-server",
    "openssh-sftp-server", "passwd", "procps", "python3", "python3-minimal", "python3-venv", "rsync", "sed", "tar",
    "util-linux", "zstd",
)
# fmt: on
KERNEL, INITRD, DISK, DESCRIPTION = "vmlinuz", "initrd", "disk.img", "image.json"


@dataclasses.dataclass(frozen=True)
class ImageRecipe:
    """What an image is made of. Without `wheels` it has python3 and sshd only: a device that must be provisioned."""

    packages: tuple[str, ...] = PACKAGES
    wheels: tuple[str, ...] = RUNTIMES
    suite: str = "bookworm"
    python: str = "3.11"
    disk_bytes: int = 900 << 20
    builder: int = BUILDER

    @property
    def key(self) -> str:
        """The name of its place in the cache: a hash of everything above."""
        return hashlib.sha256(codec.dumps(self).encode()).hexdigest()[:24]


BARE = ImageRecipe(wheels=())


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A file of an image, as it was built."""

    sha256: str
    size: int


@dataclasses.dataclass(frozen=True)
class Description:
    """`image.json`: what a whole image holds. Written last, so that an image without it is no image."""

    key: str
    files: dict[str, ImageFile]
    debs: list[str]
    wheels: list[str]
    compiled: bool
    build_seconds: float
    schema: str = "edgepack.machine-image/1"


@dataclasses.dataclass(frozen=True)
class Image:
    """A whole, checked image. `findings` say what happened on the way to it."""

    folder: Path
    description: Description
    findings: tuple[Finding, ...] = ()


def images_folder() -> Path:
    """Where images are kept."""
    from platformdirs import user_cache_path

    return user_cache_path("edgepack") / "machines"


def ensure_image(recipe: ImageRecipe | None = None, *, cache: Path | None = None, progress: Progress = quiet) -> Image:
    """The recipe's image, out of the cache when it is there and whole, built otherwise.

    An interrupted build leaves nothing that counts as an image. Raises DeviceError when packages are missing,
    or cannot be fetched.
    """
    recipe = recipe or ImageRecipe()
    cache = cache or images_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / recipe.key
    findings: list[Finding] = []
    with _locked(cache / (recipe.key + ".lock"), progress):
        if folder.exists():
            try:
                return Image(folder, _check(folder, recipe))
            except _DamageError as damage:
                progress(f"the cached image is damaged ({damage}): building it again")
                message = f"the cached image {folder.name} was damaged and has been built again: {damage}"
                findings.append(
                    Finding("image-rebuilt", WARNING, message, "check the disk that holds the cache folder")
                )
                shutil.rmtree(folder)
        need_packages(building=True)
        part = cache / (recipe.key + ".part")
        shutil.rmtree(part, ignore_errors=True)  # what an interrupted build left
        try:
            description = _build(recipe, part, cache / "downloads", progress)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        part.rename(folder)
    if not description.compiled:
        message = f"this host has no Python {recipe.python}: the machine compiles its modules itself"
        findings.append(Finding("not-compiled", INFO, message, "imports in the machine take seconds longer"))
    return Image(folder, description, tuple(findings))


def _build(recipe: ImageRecipe, part: Path, downloads: Path, progress: Progress) -> Description:
    started = time.monotonic()
    root = part / "root"
    root.mkdir(parents=True)
    debs, kernel_deb = debian.fetch_debs(
        downloads / "debs", recipe.suite, "arm64", recipe.packages, "linux-image-arm64", progress
    )
    wheel_files = wheels.fetch_wheels(downloads / "wheels", recipe.wheels, recipe.python, progress)
    progress(f"unpacking {len(debs)} packages and {len(wheel_files)} wheels")
    rootfs.unpack(debs, root)
    rootfs.finish(root)
    site = root / "usr/local/lib" / ("python" + recipe.python) / "dist-packages"
    wheels.unpack_wheels(wheel_files, site)
    progress("compiling Python modules")
    compiled = wheels.compile_modules(root, [root / "usr/lib" / ("python" + recipe.python), site], recipe.python)
    progress("writing kernel and disk")
    kernel.make_kernel(kernel_deb, root / "bin/busybox", part / "kernel", part / KERNEL, part / INITRD)
    rootfs.make_disk(root, part / DISK, recipe.disk_bytes)
    shutil.rmtree(root)
    shutil.rmtree(part / "kernel")
    names = [[path.name for path in paths] for paths in (debs, wheel_files)]
    seconds = round(time.monotonic() - started, 1)
    files = {
        name: ImageFile(debian.sha256_file(part / name), (part / name).stat().st_size)
        for name in (KERNEL, INITRD, DISK)
    }
    description = Description(recipe.key, files, names[0], names[1], compiled, seconds)
    (part / DESCRIPTION).write_text(codec.dumps(description), encoding="utf-8")
    for path in (*(part / name for name in (*files, DESCRIPTION)), part):
        _sync(path)  # the rename that follows must not reach the disk before the files
    return description


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _DamageError(Exception):
    """What is wrong with a cached image."""


def _check(folder: Path, recipe: ImageRecipe) -> Description:
    """The image's description, once every file has been read and found as it was built."""
    try:
        description = codec.loads(Description, (folder / DESCRIPTION).read_bytes(), source=str(folder / DESCRIPTION))
    except (OSError, ContractError) as error:
        raise _DamageError(f"{DESCRIPTION} cannot be read") from error
    if description.key != recipe.key:
        raise _DamageError(f"{DESCRIPTION} speaks of another image")
    for name, entry in description.files.items():
        path = folder / name
        if not path.is_file():
            raise _DamageError(f"{name} is gone")
        if path.stat().st_size != entry.size:
            raise _DamageError(f"{name} has {path.stat().st_size} bytes instead of {entry.size}")
        if debian.sha256_file(path) != entry.sha256:
            raise _DamageError(f"the sha256 of {name} has changed")
    return description


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Holds a lock file: of two processes that want the same image one builds, and the other waits for it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is at this image: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
