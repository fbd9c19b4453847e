"""Debian packages for another architecture, resolved and fetched by the host's own apt, in folders of our own.

What was fetched once is locked by name and sha256 and kept, so that the same image can be built again
without a network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agent.contract import codec
from agent.contract.errors import ContractError, DeviceError
from packager.emulate.tools import Progress, quiet, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CHUNK = 1 << 20
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclasses.dataclass(frozen=True)
class Lock:
    """The files that a request came down to: name to hex sha256."""

    files: dict[str, str]
    schema: str = "edgepack.lock/1"


def sha256_file(path: Path) -> str:
    """The file's hex sha256."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def locked(folder: Path, key: str) -> list[Path] | None:
    """The files fetched earlier for `key`, if every one of them is still there and whole."""
    try:
        lock = codec.loads(Lock, (folder / (key + ".lock")).read_bytes())
    except FileNotFoundError:
        return None
    except ContractError:
        return None  # a lock that cannot be read locks nothing: fetch again
    files = [folder / name for name in lock.files]
    whole = all(path.is_file() and sha256_file(path) == lock.files[path.name] for path in files)
    return files if whole else None


def lock(folder: Path, key: str, files: Sequence[Path]) -> list[Path]:
    """Moves fetched files into `folder` and writes the lock that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for path in sorted(files):
        target = folder / path.name
        shutil.move(path, folder / (path.name + ".part"))
        (folder / (path.name + ".part")).replace(target)
        kept.append(target)
    document = Lock({path.name: sha256_file(path) for path in kept})
    part = folder / (key + ".lock.part")
    part.write_text(codec.dumps(document), encoding="utf-8")
    part.replace(folder / (key + ".lock"))
    return kept


def request_key(kind: str, *parts: object) -> str:
    """A short name for what was asked, stable from run to run."""
    return f"{kind}-{hashlib.sha256(codec.dumps(list(parts)).encode()).hexdigest()[:16]}"


def fetch_packages(
    folder: Path, suite: str, architecture: str, packages: Sequence[str], progress: Progress = quiet
) -> list[Path]:
    """The .deb files of `packages` with all they depend on. Raises DeviceError when apt cannot find or fetch them."""
    key = _packages_key(suite, architecture, packages)
    files = locked(folder, key)
    if files:
        return files
    with _apt(folder, suite, architecture, progress) as apt:
        return _download(apt, folder, key, packages, progress)


def fetch_debs(
    folder: Path, suite: str, architecture: str, packages: Sequence[str], kernel: str, progress: Progress = quiet
) -> tuple[list[Path], Path]:
    """As `fetch_packages`, and the package of the kernel that the meta package `kernel` points to."""
    keys = _packages_key(suite, architecture, packages), request_key("kernel", suite, architecture, kernel)
    files, image = locked(folder, keys[0]), locked(folder, keys[1])
    if files and image:
        return files, image[0]
    with _apt(folder, suite, architecture, progress) as apt:
        files = _download(apt, folder, keys[0], packages, progress)
        name = _real_kernel(apt.run(["apt-cache", "depends", kernel]), kernel)
        progress(f"fetching {name}")
        apt.run(["apt-get", "download", name])
        image = lock(folder, keys[1], sorted(apt.scratch.glob("*.deb")))
    return files, image[0]


def _packages_key(suite: str, architecture: str, packages: Sequence[str]) -> str:
    return request_key("debs", suite, architecture, list(packages))


@contextlib.contextmanager
def _apt(folder: Path, suite: str, architecture: str, progress: Progress) -> Iterator[_Apt]:
    """An apt that has read the suite's lists, for as long as its scratch folder lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="apt-") as scratch:
        apt = _Apt(Path(scratch), suite, architecture)
        progress(f"reading the package lists of Debian {suite} {architecture}")
        apt.run(["apt-get", "update"])
        yield apt


def _download(apt: _Apt, folder: Path, key: str, packages: Sequence[str], progress: Progress) -> list[Path]:
    progress("fetching packages")
    apt.run(["apt-get", "install", "-y", "--no-install-recommends", "--download-only", *packages])
    return lock(folder, key, sorted(apt.archives.glob("*.deb")))


class _Apt:
    """apt with every folder its own, so that the host's package state is neither read nor changed."""

    def __init__(self, scratch: Path, suite: str, architecture: str) -> None:
        self.scratch = scratch
        self.archives = scratch / "cache" / "archives"
        for folder in (scratch / "state" / "lists" / "partial", self.archives / "partial", scratch / "etc"):
            folder.mkdir(parents=True)
        (scratch / "status").touch()
        (scratch / "etc" / "sources.list").write_text(_source(suite, architecture))
        self.options = [
            argument
            for option in (
                f"Dir::State={scratch / 'state'}",
                f"Dir::State::status={scratch / 'status'}",
                f"Dir::Cache={scratch / 'cache'}",
                f"Dir::Etc::sourcelist={scratch / 'etc' / 'sources.list'}",
                "Dir::Etc::sourceparts=-",
                "Dir::Etc::preferencesparts=-",
                f"APT::Architecture={architecture}",
                f"APT::Architectures::={architecture}",
                f"APT::Architectures={architecture}",
                "APT::Sandbox::User=",
                "APT::Keep-Downloaded-Packages=true",
                "Debug::NoLocking=true",
                "quiet=2",
            )
            for argument in ("-o", option)
        ]

    def run(self, argv: Sequence[str]) -> str:
        return run(
            [argv[0], *self.options, *argv[1:]],
            what="fetching Debian packages",
            cwd=self.scratch,
            environment={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )


def _source(suite: str, architecture: str) -> str:
    """The sources.list line for `suite`, from the mirror that this host itself uses: of that suite, or of its own release.

    A mirror of Debian holds every release that is not archived yet; apt tells of one that does not.
    """
    said = run(
        ["apt-get", "indextargets", "--format", "$(CODENAME)|$(SUITE)|$(ORIGIN)|$(REPO_URI)"],
        what="asking apt for its mirror",
    )
    known = [line.split("|") for line in sorted(set(said.splitlines()))]
    exact = [uri for codename, alias, _, uri in known if suite in (codename, alias)]
    # A codename with a dash (bookworm-security, bookworm-backports) is a part that other mirrors carry.
    others = [uri for codename, _, origin, uri in known if origin == "Debian" and "-" not in codename]
    if exact or others:
        signed = f" signed-by={_KEYRING}" if _KEYRING.exists() else ""
        return f"deb [arch={architecture}{signed}] {(exact or others)[0]} {suite} main\n"
    raise DeviceError(
        f"apt on this host has no source for Debian {suite}",
        where="apt-get indextargets",
        expected="a Debian host, with its package lists",
        fix=f"apt-get update; or add a source of Debian {suite} to /etc/apt/sources.list.d first",
        code="no-mirror",
    )


def _real_kernel(said: str, kernel: str) -> str:
    for line in said.splitlines():
        word, _, name = line.strip().partition("Depends: ")
        if not word and name and not name.startswith("<"):
            return name.strip()
    raise DeviceError(f"apt does not say which kernel {kernel} stands for", expected=said[:500], code="no-kernel")
