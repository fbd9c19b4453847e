"""The cache of images: built once, rebuilt when damaged, and never half there. The builder here writes three small files."""

import dataclasses
import threading

import pytest

from agent.contract import codec
from agent.contract.errors import DeviceError
from packager.emulate import image
from packager.emulate.debian import sha256_file
from packager.emulate.image import BARE, ImageRecipe, ensure_image

RECIPE = ImageRecipe()
FILES = (image.KERNEL, image.INITRD, image.DISK)


@pytest.fixture
def builds(monkeypatch):
    """The recipes built so far."""
    done = []

    def build(recipe, part, downloads, progress):
        assert not part.exists()
        part.mkdir()
        for name in FILES:
            (part / name).write_bytes(name.encode() * 1000)
        files = {name: image.ImageFile(sha256_file(part / name), (part / name).stat().st_size) for name in FILES}
        description = image.Description(recipe.key, files, [], [], True, 0.1)
        (part / image.DESCRIPTION).write_text(codec.dumps(description))
        done.append(recipe)
        return description

    monkeypatch.setattr(image, "_build", build)
    monkeypatch.setattr(image, "need_packages", lambda **_: None)
    return done


def test_built_once(builds, tmp_path):
    first, second = ensure_image(RECIPE, cache=tmp_path), ensure_image(RECIPE, cache=tmp_path)
    assert first == second
    assert first.findings == ()
    assert len(builds) == 1


def test_another_recipe_is_another_image(builds, tmp_path):
    assert ensure_image(RECIPE, cache=tmp_path).folder != ensure_image(BARE, cache=tmp_path).folder
    assert dataclasses.replace(RECIPE, builder=RECIPE.builder + 1).key != RECIPE.key
    assert builds == [RECIPE, BARE]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["flipped", "truncated", "gone"])
def test_corrupt_cached_image(builds, tmp_path, name, fault):
    path = ensure_image(RECIPE, cache=tmp_path).folder / name
    raw = path.read_bytes()
    if fault == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:-1] if fault == "truncated" else raw[:500] + b"\xff" + raw[501:])
    again = ensure_image(RECIPE, cache=tmp_path)
    assert [finding.code for finding in again.findings] == ["image-rebuilt"]
    assert name in again.findings[0].message
    assert path.read_bytes() == raw
    assert ensure_image(RECIPE, cache=tmp_path).findings == ()


@pytest.mark.parametrize("text", ["", "{", '{"schema": "edgepack.machine-image/9"}'])
def test_corrupt_description(builds, tmp_path, text):
    (ensure_image(RECIPE, cache=tmp_path).folder / image.DESCRIPTION).write_text(text)
    assert ensure_image(RECIPE, cache=tmp_path).findings[0].code == "image-rebuilt"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceError("no network")])
def test_interrupted_build(builds, tmp_path, monkeypatch, error):
    def build(recipe, part, downloads, progress):
        part.mkdir()
        (part / image.DISK).write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(image, "_build", build)
        with pytest.raises(type(error)):
            ensure_image(RECIPE, cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    # Killed outright, it could not even clean up: what it left is no image either.
    (tmp_path / (RECIPE.key + ".part")).mkdir()
    (tmp_path / (RECIPE.key + ".part") / image.DISK).write_bytes(b"half")
    assert ensure_image(RECIPE, cache=tmp_path).folder.name == RECIPE.key
    assert len(builds) == 1


def test_two_at_once_build_one(builds, tmp_path):
    said, results = [], []

    def work():
        results.append(ensure_image(RECIPE, cache=tmp_path, progress=said.append))

    others = [threading.Thread(target=work) for _ in range(2)]
    with image._locked(tmp_path / (RECIPE.key + ".lock"), said.append):
        for other in others:
            other.start()
        for other in others:
            other.join(0.3)
        assert results == []  # they wait, and say so
        assert said == ["another process is at this image: waiting for it"] * 2
    for other in others:
        other.join(20)
    assert results[0] == results[1]
    assert builds == [RECIPE]
