"""A `tensorrt` made from the signatures of NVIDIA's real bindings (signatures/*.json).

It raises on any name that the version does not have and on any call that does not fit the version's own signature. It
knows nothing of what TensorRT does: what it returns is what the test says, and no number out of it is a measurement.
"""

import enum
import inspect
import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "signatures"
VERSIONS = sorted(
    (path.stem.partition("-")[2] for path in FOLDER.glob("*.json")), key=lambda v: [*map(int, v.split("."))]
)
_PARAMETER = re.compile(r",\s*(?=\w+\s*(?::|=|$))")
_SIGNATURE = re.compile(r"(?:\d+\. )?\w+\((.*)\) -> (.+)$")


class StandIn:
    """The module. `answers` maps "Class.member" to a value, or to a function of the call's arguments."""

    def __init__(self, version, answers=None):
        told = json.loads((FOLDER / f"tensorrt-{version}.json").read_text(encoding="utf-8"))
        self.__version__ = told["version"]
        self.answers = answers or {}
        self.calls = []
        for name, members in told["enums"].items():
            setattr(self, name, enum.IntEnum(name, members))
        for name, members in told["classes"].items():
            setattr(self, name, self._class(name, members))

    def called(self, name):
        """The arguments of each call of, or value given to, "Class.member"."""
        return [arguments for one, arguments in self.calls if one == name]

    def _class(self, name, members):
        module = self

        class Thing:
            def __init__(self, *arguments, **named):
                if "__init__" in members and type(self) is Thing:
                    module._check(name, "__init__", members["__init__"], (self, *arguments), named)

            def __getattr__(self, member):
                if member.startswith("__") or member not in members:
                    raise AttributeError(f"TensorRT {module.__version__}: {name} has no {member!r}")
                if members[member] == "property":
                    return module.answers.get(f"{name}.{member}", 0)
                return lambda *arguments, **named: module._call(
                    name, member, members[member], (self, *arguments), named
                )

            def __setattr__(self, member, value):
                if members.get(member) != "property" and type(self) is Thing:
                    raise AttributeError(f"TensorRT {module.__version__}: {name}.{member} cannot be set")
                module.calls.append((f"{name}.{member}", (value,)))

        Thing.__name__ = name
        return Thing

    def _check(self, name, member, signatures, arguments, named):
        faults = []
        for text in signatures:
            match = _SIGNATURE.match(text)
            names = [re.match(r"\w+", part.strip()).group() for part in _PARAMETER.split(match[1]) if part.strip()]
            defaults = ["=" in part for part in _PARAMETER.split(match[1]) if part.strip()]
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters = [
                inspect.Parameter(one, kind, default=None if optional else inspect.Parameter.empty)
                for one, optional in zip(names, defaults, strict=True)
            ]
            try:
                inspect.Signature(parameters).bind(*arguments, **named)
            except TypeError as error:
                faults.append(f"{text}: {error}")
            else:
                return match[2]
        raise TypeError(f"TensorRT {self.__version__}: {name}.{member}: {'; '.join(faults)}")

    def _call(self, name, member, signatures, arguments, named):
        result = self._check(name, member, signatures, arguments, named)
        self.calls.append((f"{name}.{member}", arguments[1:]))
        key = f"{name}.{member}"
        if key in self.answers:
            answer = self.answers[key]
            return answer(*arguments[1:]) if callable(answer) else answer
        if result == "bool":
            return True
        if result.lower().startswith("list"):
            return []
        if result == "int":
            return 0
        return getattr(self, result)() if hasattr(self, result) else None
