"""`agent.client`: an application's model is the slot's, after each activation, and never what may not run."""

import numpy as np
import pytest

from agent.client import Model
from agent.contract.archive import BundleReader
from agent.contract.errors import DeviceError, IntegrityError, UsageError
from packager.device.device import Device
from packager.device.push import PushOptions
from tests.device.road import digest_of, with_file


@pytest.fixture
def here(client):
    """This machine as a device, with a folder of the test's own."""
    with Device("local") as device:
        yield device


@pytest.fixture
def root(client):
    return str(client.home / ".edgepack")


@pytest.fixture
def golden(bundle, tmp_path):
    """Inputs by name, and outputs."""
    with BundleReader(bundle) as reader:
        reader.extract(tmp_path / "open")
        told = reader.manifest.golden
    return [
        {one.name: np.load(tmp_path / "open" / one.file)[0] for one in side} for side in (told.inputs, told.outputs)
    ]


@pytest.fixture
def second(bundle, tmp_path):
    return with_file(bundle, tmp_path / "second.edgepack", bytes(1000))


def slot(bundle):
    return bundle, PushOptions(slot="vision")


def test_it_follows_an_activation_and_a_rollback(here, root, bundle, second, golden):
    here.push(*slot(bundle))
    model = Model("vision", root)
    inputs, outputs = golden
    for found in (model.run(inputs), model.run(inputs)):
        for name, wanted in outputs.items():
            np.testing.assert_allclose(found[name], wanted, atol=1e-3)
    assert (model.digest, model.refresh()) == (digest_of(bundle), False)
    here.push(*slot(second))
    assert set(model.run(inputs)) == set(outputs)
    assert (model.digest, model.problem) == (digest_of(second), None)
    here.rollback("vision")
    assert model.refresh()
    assert model.digest == digest_of(bundle)
    here.rollback("vision", leaving=digest_of(bundle), emptying=True)  # as a roll-out does
    assert set(model.run(inputs)) == set(outputs)
    assert (model.problem.code, model.digest) == ("no-bundle", digest_of(bundle))
    here.push(*slot(bundle))
    assert (model.refresh(), model.problem) == (False, None)
    model.close()


def test_a_bundle_that_was_damaged_is_not_taken_and_the_old_one_goes_on(here, root, bundle, second, golden, client):
    here.push(*slot(bundle))
    model = Model("vision", root)
    here.push(*slot(second))
    padding = client.home / ".edgepack" / "slots" / "vision" / "current" / "extra" / "padding.bin"
    padding.chmod(0o600)
    padding.write_bytes(bytes(999) + b"!")
    assert set(model.run(golden[0])) == set(golden[1])
    assert model.digest == digest_of(bundle)
    assert isinstance(model.problem, IntegrityError)
    with pytest.raises(IntegrityError):
        Model("vision", root)
    assert here.push(second, PushOptions(repair=True))["bytes_sent"] > 0
    assert not model.refresh()  # told once; the next activation is looked at again
    assert Model("vision", root).digest == digest_of(second)


def test_what_cannot_be(here, root, bundle, golden):
    with pytest.raises(DeviceError) as caught:
        Model("vision", root)
    assert "--slot vision" in caught.value.fix
    here.push(*slot(bundle))
    model = Model("vision", root)
    for wrong in ({}, {"other": golden[0]["image"] if "image" in golden[0] else np.zeros(3)}):
        with pytest.raises(UsageError):
            model.run(wrong)
    (name,) = golden[0]
    with pytest.raises(UsageError, match="float64"):
        model.run({name: golden[0][name].astype("float64")})
