"""Every source, converter and target keeps its protocol; every target finds its runner on the device."""

import importlib
import inspect
import pkgutil

import pytest

import agent.probes
from agent.probes import reading
from packager import protocols, registry

RUNNER = {"load": ["path", "options"], "run": ["inputs"], "io": [], "output_names": [], "placement": [], "close": []}
RUNNER |= {"version": [], "provider": []}


def keeps(thing, protocol):
    """What of the protocol `thing` lacks, or has with other parameters."""
    faults = [name for name in protocol.__annotations__ if not hasattr(thing, name)]
    for name, method in vars(protocol).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        theirs = getattr(type(thing), name, None)
        if theirs is None:
            faults.append(f"{name}()")
        elif list(inspect.signature(theirs).parameters) != list(inspect.signature(method).parameters):
            faults.append(f"{name}{inspect.signature(theirs)}")
    return faults


def called(things):
    return [pytest.param(thing, id=type(thing).__name__) for thing in things]


@pytest.mark.parametrize("source", called(registry.sources()))
def test_source_keeps_its_protocol(source):
    assert keeps(source, protocols.Source) == []
    assert isinstance(source.format, str)


@pytest.mark.parametrize("converter", called(registry.converters()))
def test_converter_keeps_its_protocol_and_is_named_by_its_edge(converter):
    assert keeps(converter, protocols.Converter) == []
    assert type(converter).__module__ == f"packager.convert.{converter.result}_from_{converter.source}"


@pytest.mark.parametrize("name", registry.target_names())
def test_target_keeps_its_protocol_and_is_named_by_its_file(name):
    target = registry.target(name)
    assert keeps(target, protocols.Target) == []
    assert target.name == name
    assert target.title
    assert target.recipes


@pytest.mark.parametrize("name", registry.target_names())
def test_target_has_a_runner_of_its_name_or_says_that_it_needs_none(name):
    assert name in reading.runner_names() or getattr(registry.target(name), "runner", name) == ""


@pytest.mark.parametrize("name", registry.target_names())
def test_some_source_reaches_the_target(name):
    assert [source.format for source in registry.sources() if name in registry.reachable(source.format)]


@pytest.mark.parametrize("name", reading.runner_names())
def test_runner_keeps_its_protocol(name):
    module = importlib.import_module(f"agent.runners.{name}")
    assert module.Runner.name == name
    for method, parameters in RUNNER.items():
        assert list(inspect.signature(getattr(module.Runner, method)).parameters) == ["self", *parameters]
    assert all(isinstance(one, str) for one in module.DISTRIBUTIONS)


def test_runners_are_those_of_targets():
    assert set(reading.runner_names()) <= set(registry.target_names())


@pytest.mark.parametrize(
    "name", sorted({module.name for module in pkgutil.iter_modules(agent.probes.__path__)} - {"files", "reading"})
)
def test_probe_keeps_its_protocol(name, tmp_path):
    probe = importlib.import_module(f"agent.probes.{name}")
    assert probe.available(str(tmp_path)) is False
    told = probe.read(str(tmp_path))
    unread = told.pop("unread")
    assert {key for key, value in told.items() if value is None} <= set(unread)


def test_formats_are_named_once():
    formats = [source.format for source in registry.sources()]
    assert len(set(formats)) == len(formats)
    edges = [(edge.source, edge.result) for edge in registry.converters()]
    assert len(set(edges)) == len(edges)
