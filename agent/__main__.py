"""The agent's door: reads a job, calls its verb, writes the result on the device and then to the wire."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Any, List

import agent.verbs
from agent.contract import codec
from agent.contract.errors import DeviceError, EdgepackError, unknown_name
from agent.contract.job import Job
from agent.wire import INTERRUPTED, Wire, read_document, watch_for_cancel


def main() -> int:
    """A job from standard input, or `run` for people and scripts on the device."""
    return _run_once() if sys.argv[1:2] == ["run"] else _job()


def _job() -> int:
    """Runs one job; the exit status is the error's, 0 for a result."""
    os.umask(0o077)
    wire = Wire()
    if sys.argv[1:2] == ["_child"]:
        from agent import child

        return child.main(wire)
    try:
        return _serve(wire)
    except KeyboardInterrupt:
        return INTERRUPTED
    except EdgepackError as error:
        wire.error(error)
        return error.exit_code
    except MemoryError:
        wire.error(DeviceError("the device ran out of memory", code="out-of-memory"))
        return DeviceError.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence: told to the host in full, as our bug
        import traceback

        text = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-6:])
        wire.error(
            EdgepackError("the agent failed: %r" % error, where=text, fix="please report this", code="agent-bug")
        )
        return EdgepackError.exit_code


def _run_once() -> int:
    from agent import client

    try:
        client.run_once(sys.argv[2:])
    except EdgepackError as error:
        sys.stderr.write("agent: %s\n" % error)
        return error.exit_code
    return 0


def _serve(wire: Wire) -> int:
    if len(sys.argv) > 1:
        # `agent.pyz VERB` names the verb for whoever looks at the process list; the job repeats it.
        _check_verb(sys.argv[1])
    job = codec.decode(Job, read_document())
    _check_verb(job.verb)
    from agent import site  # not above: the measuring process passes here, too, and must stay small

    site.enable(job.root)
    handler = importlib.import_module("agent.verbs." + job.verb)
    watch_for_cancel(listen=not getattr(handler, "STREAMS", False))
    wire.heartbeats()
    from agent import audit

    with audit.recorded(job, wire) as note:
        result: Any = handler.run(job, wire)
        note(result)
    wire.result(result)
    return 0


def _check_verb(verb: str) -> None:
    if verb not in verbs():
        raise unknown_name("verb", verb, verbs())


def verbs() -> List[str]:
    """What the agent can do: the files of `agent/verbs`."""
    return sorted(module.name for module in pkgutil.iter_modules(agent.verbs.__path__))


if __name__ == "__main__":
    sys.exit(main())
