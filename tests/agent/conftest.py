"""Bundles of the demo's model for this machine, and agents under real interpreters."""

import platform
import subprocess

import pytest

import packager
from packager import demo_data
from tests.agent.remote import Agent, find_python

PROFILES = {"x86_64": "linux-x86-64", "aarch64": "linux-arm64"}


@pytest.fixture(scope="session")
def demo_bundles(tmp_path_factory):
    """`demo_bundles("fp32")` is the demo's model built for this machine: path and digest."""
    built = {}
    folder = tmp_path_factory.mktemp("bundles")
    profile = PROFILES.get(platform.machine())
    if profile is None:
        pytest.skip(f"no profile for {platform.machine()}")

    def build(recipe):
        if recipe not in built:
            calibration = str(demo_data.calibration_path())
            made = packager.build(
                str(demo_data.model_path()),
                profile,
                recipe=recipe,
                calibration=calibration,
                output=folder / f"{recipe}.edgepack",
            )
            built[recipe] = (made.bundle, made.digest)
        return built[recipe]

    return build


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """`bare_python("3.8")` is that interpreter with the standard library and nothing else; skips where there is none."""
    made = {}

    def find(version):
        if version not in made:
            python = find_python(version)
            if python is None:
                pytest.skip(f"Python {version} is not installed on this machine")
            folder = tmp_path_factory.mktemp(f"python{version}")
            subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
            made[version] = str(folder / "bin" / "python")
        return made[version]

    return find


@pytest.fixture
def agent_with(bare_python, tmp_path):
    """`agent_with("3.8")` is the agent under that interpreter."""
    return lambda version: Agent(bare_python(version), tmp_path)
