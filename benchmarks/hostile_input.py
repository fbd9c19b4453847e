"""Hostile input: 1,000 tampered bundles against a strict device's checks, and atheris over what comes from outside.

python benchmarks/hostile_input.py tampered [--count 1000]
python benchmarks/hostile_input.py fuzz manifest|zip|codec|agent|signature [--seconds 60]
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if "fuzz" in sys.argv:  # before anything else imports them
    import atheris

    with atheris.instrument_imports(include=["agent", "packager.device.answers", "packager.device.bootstrap"]):
        import agent.contract.archive  # noqa: F401
        import packager.device.answers  # noqa: F401

from agent.contract import codec, signatures
from agent.contract.archive import BundleReader
from agent.contract.errors import EdgepackError, IntegrityError
from agent.contract.manifest import Manifest, manifest_digest
from agent.contract.report import Report
from packager.device.answers import Answer, decoded
from packager.device.transport import Completed
from tests.agent import signing
from tests.agent.bundles import CONTENTS, EPOCH, entries, write_entries

Parts = list[tuple[str, bytes]]


def flip(raw: bytes, rng: random.Random) -> bytes:
    """One to eight bits turned."""
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(raw: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return raw[: rng.randrange(len(raw))]


def _zipped(parts: Parts) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_entries(Path(folder) / "x", parts).read_bytes()


def _parts(raw: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def other_file(raw: bytes, rng: random.Random) -> bytes:
    """A file's bytes replaced, the zip's own checksums right."""
    name = rng.choice(sorted(CONTENTS))
    return _zipped([(n, flip(d, rng) if n == name else d) for n, d in _parts(raw)])


def other_file_and_manifest(raw: bytes, rng: random.Random) -> bytes:
    """A file replaced and the manifest made to fit: another digest, the old signature."""
    name = rng.choice(sorted(CONTENTS))
    contents = {n: (flip(d, rng) if n == name else d) for n, d in CONTENTS.items()}
    return _zipped([*entries(contents=contents), *_parts(raw)[-1:]])


def other_signature(raw: bytes, rng: random.Random) -> bytes:
    """The signature's text changed."""
    return _zipped([(n, flip(d, rng) if n.startswith("signatures/") else d) for n, d in _parts(raw)])


def unsigned(raw: bytes, rng: random.Random) -> bytes:
    """The signature is gone; a file more or less, too, at times."""
    parts = _parts(raw)[:-1]
    return _zipped([*parts, ("extra.bin", rng.randbytes(9))] if rng.random() < 0.5 else parts)


def escaping(raw: bytes, rng: random.Random) -> bytes:
    """A name that leaves the folder, a link, a device file, a folder, a compressed bomb."""
    parts: list[Any] = list(_parts(raw))
    kind = rng.choice(["../x", "/etc/x", "a\\..\\x", "link", "device", "folder", "bomb", "C:x", "a/../../x", "\u202ex"])
    info = zipfile.ZipInfo({"link": "l", "device": "d", "folder": "f/", "bomb": "b"}.get(kind, kind), date_time=EPOCH)
    info.external_attr = {"link": 0o120777, "device": 0o60644, "folder": 0o40755}.get(kind, 0o100644) << 16
    info.compress_type = zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts[: rng.randint(1, len(parts))]:
            archive.writestr(zipfile.ZipInfo(name, date_time=EPOCH), data)
        archive.writestr(info, bytes(1 << 22) if kind == "bomb" else b"/etc/passwd")
    return out.getvalue()


TAMPER: list[Callable[[bytes, random.Random], bytes]] = [
    flip, cut, other_file, other_file_and_manifest, other_signature, unsigned, escaping,
]  # fmt: skip


def admitted(path: Path, trust: signatures.Trust, out: Path) -> str:
    """What a strict device does before it runs a bundle; its digest."""
    with BundleReader(path) as reader:
        reader.verify()
        signatures.require(reader.digest, reader.signatures, trust)
        reader.extract(out)
        return reader.digest


def tampered(count: int, seed: int) -> dict[str, Any]:
    """Refused, by kind of tampering and by error; a change that leaves manifest, files and signature alone is drawn anew."""
    rng, refused, codes, same = random.Random(seed), Counter[str](), Counter[str](), 0  # noqa: S311 - to be drawn again
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        key = signing.key(base)
        digest = signing.signed(base / "whole.edgepack", key)
        trust = signatures.Trust(signed_only=True, allowed_signers=signing.allowed(key))
        assert admitted(base / "whole.edgepack", trust, base / "whole") == digest
        raw, passed = (base / "whole.edgepack").read_bytes(), 0
        original = _parts(raw)
        while sum(refused.values()) + passed < count:
            kind = rng.choice(TAMPER)
            changed = kind(raw, rng)
            path = base / "tampered.edgepack"
            path.write_bytes(changed)
            number = sum(refused.values())
            try:
                admitted(path, trust, base / f"out{number}" / "in")
            except IntegrityError as error:
                refused[kind.__name__] += 1
                codes[error.code] += 1
            except EdgepackError as error:
                refused[kind.__name__] += 1
                codes[type(error).__name__] += 1
            else:
                if _parts(changed) == original:
                    same += 1
                else:
                    passed += 1
        outside = [one.name for one in base.iterdir() if not one.name.startswith(("out", "whole", "key", "tampered"))]
    return {
        "tampered": count, "refused": sum(refused.values()), "passed": passed, "escaped": outside, "by_kind": refused,
        "by_error": codes, "only_zip_dates_changed_and_drawn_anew": same, "seconds": time.perf_counter() - start,
        "seed": seed,
    }  # fmt: skip


def _agent(data: bytes) -> None:
    answer = Answer(lambda _: None)
    for line in data.split(b"\n"):
        answer.line(line)
    decoded(Report, answer.value(Completed(data[0] if data else 0, b"", data), "device"), "device")


def _zip(data: bytes) -> None:
    path = Path(tempfile.gettempdir()) / "edgepack-fuzz.zip"
    path.write_bytes(data)
    with BundleReader(path) as reader:
        reader.verify()


AIMS: dict[str, Callable[[bytes], Any]] = {
    "manifest": lambda data: codec.loads(Manifest, data),
    "codec": lambda data: codec.decode(Report, json.loads(data)),
    "signature": lambda data: signatures.parse(data, "x"),
    "agent": _agent,
    "zip": _zip,
}
OURS = (EdgepackError,)


def fuzz(aim: str, seconds: int) -> None:
    """Runs atheris, which ends the process; a crash is an exception that is not ours, a hang 10 s on one input."""
    import atheris

    call = AIMS[aim]

    def one(data: bytes) -> None:
        try:
            call(data)
        except OURS:
            return
        except (ValueError, RecursionError):
            if aim != "codec":  # json.loads above is the harness's own
                raise

    with tempfile.TemporaryDirectory() as folder:
        seeds = dict(entries())
        raw = seeds["manifest.json"]
        whole = write_entries(Path(folder) / "b", entries()).read_bytes()
        lines = b'{"type": "progress", "message": "x"}\n{"type": "result", "result": {"schema": "edgepack.report/1"}}'
        first = {"manifest": raw, "codec": b'{"schema": "edgepack.report/1"}', "agent": lines, "zip": whole}
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        (corpus / "seed").write_bytes(first.get(aim, b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n"))
        print(manifest_digest(raw), flush=True)
        argv = [sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-timeout=10", "-max_len=65536"]
        atheris.Setup(argv, one)
        atheris.Fuzz()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tampered", "fuzz"])
    parser.add_argument("aim", nargs="?", choices=sorted(AIMS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=9)
    asked = parser.parse_args()
    if asked.what == "tampered":
        print(json.dumps(tampered(asked.count, asked.seed), indent=2))
    else:
        fuzz(asked.aim or "manifest", asked.seconds)


if __name__ == "__main__":
    main()
