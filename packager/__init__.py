"""edgepack as a library: everything that the command line does.

    import packager
    built = packager.build("model.onnx", "raspberry-pi-5", recipe="int8", calibration="samples.npz")
    with packager.Device("pi@kitchen") as device:
        report = device.bench(built.bundle)

Names are loaded when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.contract.archive import BundleReader
    from packager.device.device import Device
    from packager.pipeline import Built, Request, build
    from packager.profile import Profile, load_profile, profile_names
    from packager.results.store import ResultStore

_PLACES = {
    "BundleReader": "agent.contract.archive",
    "Built": "packager.pipeline",
    "Device": "packager.device.device",
    "Profile": "packager.profile",
    "Request": "packager.pipeline",
    "ResultStore": "packager.results.store",
    "build": "packager.pipeline",
    "load_profile": "packager.profile",
    "profile_names": "packager.profile",
}

__all__ = [
    "Built",
    "BundleReader",
    "Device",
    "Profile",
    "Request",
    "ResultStore",
    "build",
    "load_profile",
    "profile_names",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)
