"""How long steps take: constant, lognormal, or drawn from a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.training.compute import StepTimes, read_trace
from adpsgd_node.sim.training.scenario import ComputeConfig, TrainingScenario


def times_of(distribution: str, *slow: str) -> StepTimes:
    compute = ComputeConfig(step_ms=200.0, step_distribution=distribution, slow=slow)
    return StepTimes(TrainingScenario(nodes=3, compute=compute))


def drawn(times: StepTimes, node: int, count: int = 4000) -> np.ndarray:
    return np.array([times.next_s(node) for _ in range(count)])


def test_constant_steps_take_the_mean_and_slow_nodes_so_many_times_it() -> None:
    times = times_of("constant", "n1=4")

    assert set(drawn(times, 0, 5)) == {0.2}
    assert set(drawn(times, 1, 5)) == {0.8}
    assert times.ideal_rate == pytest.approx(5 + 1.25 + 5)


def test_lognormal_steps_keep_the_mean_and_have_the_spread_asked_for() -> None:
    times = times_of("lognormal:0.5", "n1=4")

    for node, mean in ((0, 0.2), (1, 0.8)):
        found = drawn(times, node)
        assert found.mean() == pytest.approx(mean, rel=0.05)
        assert np.log(found).std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("text", ["[0.1, 0.2, 0.6]", "0.1\n\n0.2\n0.6\n", " [0.1,\n0.2,\n0.6]"])
def test_steps_are_drawn_from_a_trace_whatever_its_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)

    times = times_of(f"trace:{path}", "n2=10")

    assert times.mean_s == pytest.approx([0.3, 0.3, 3.0])
    assert set(drawn(times, 0, 200)) == {0.1, 0.2, 0.6}
    assert drawn(times, 2).mean() == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("[]", "is empty"),
        ("0.1\nfast\n", "line 2"),
        ("[0.1, 0]", "value 2"),
        ("[0.1, NaN]", "value 2"),
        ("[true]", "value 1"),
        ('{"step_s": 1}', "value 1"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match=said) as caught:
        read_trace(path)

    assert str(path) in str(caught.value)
    assert "JSON list of seconds" in str(caught.value)


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the trace .*none\.json"):
        read_trace(tmp_path / "none.json")
