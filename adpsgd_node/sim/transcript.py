"""Write down what happens in a simulation with faults, so that a seed that failed once is looked at ever after.

    > faults nodes=4 seconds=8.0 interval_s=1.5 loss=0.05 resets=0.01 preset=lan seed=7
    2.417 n01#1 n01#1/3 sends chunk 0, applied through 0        time, node, and what it does
    3.005 fault: reset n02#1                                    what is done to a node
    21.500 all is well                                          or what is WRONG, one line each

The first line says all there is to know: whoever plays it gets the rest, to the letter.
"""

from __future__ import annotations

from dataclasses import fields

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.fault_scenario import FaultRun, FaultScenario

__all__ = ["scenario_of", "transcribed"]

_HEAD = "> faults "


def transcribed(scenario: FaultScenario) -> tuple[FaultRun, str]:
    """Simulate one seed; return what it came to, and its transcript."""
    settings = " ".join(f"{field.name}={getattr(scenario, field.name)}" for field in fields(scenario))
    lines = [_HEAD + settings]
    run = scenario.run(trace=lines.append)
    lines += [f"WRONG: {what}" for what in run.wrong] or ["all is well"]
    return run, "\n".join(lines) + "\n"


def scenario_of(transcript: str) -> FaultScenario:
    """Return the scenario that a transcript is of. Raises `ConfigError` when its first line does not say."""
    head = transcript.partition("\n")[0]
    usual = FaultScenario()
    known = {field.name: type(getattr(usual, field.name)) for field in fields(usual)}
    given = dict(part.partition("=")[::2] for part in head.removeprefix(_HEAD).split())
    if not head.startswith(_HEAD) or not given.keys() <= known.keys():
        raise ConfigError(f"{head[:80]!r} is no head of a transcript: write {_HEAD}nodes=16 seed=7, for example.")
    return FaultScenario(**{name: known[name](text) for name, text in given.items()})
