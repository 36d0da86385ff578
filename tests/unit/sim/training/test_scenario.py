"""What a user writes about a training to be simulated: what it means, and what is refused and why."""

from __future__ import annotations

from typing import Any

import pytest

from adpsgd_node.config import compose
from adpsgd_node.core.exchange.frame import CodecName
from adpsgd_node.errors import ConfigError
from adpsgd_node.sim.training.notation import Shape, StepDistribution, step_distribution
from adpsgd_node.sim.training.scenario import Algorithm, NetworkConfig, TrainingScenario
from adpsgd_node.sim.training.sweep import Sweep, read_sweep, variations


def composed(**given: object) -> TrainingScenario:
    return compose(TrainingScenario, None, given, {})


def test_nodes_are_named_by_their_number_with_or_without_zeros() -> None:
    scenario = composed(nodes="12", slow="n3=10,n011=2", slow_link="7=4", crash="n0@1.5,n11@2")

    assert scenario.slowdowns == {3: 10.0, 11: 2.0}
    assert scenario.link_slowdowns == {7: 4.0}
    assert scenario.crashes == {0: 1.5, 11: 2.0}
    assert scenario.names[0] == "n00"
    assert sorted(scenario.names) == list(scenario.names)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": "0"}, ("nodes", "1 to 4096")),
        ({"nodes": "5000"}, ("nodes", "1 to 4096")),
        ({"steps": "0"}, ("steps", "1 to")),
        ({"nodes": "4000", "steps": "1000000"}, ("steps", "for 4000 nodes")),
        ({"batch": "0"}, ("batch", "1 or more")),
        ({"algorithm": "sgd"}, ("algorithm", "ad-psgd, d-psgd, a-psgd, allreduce")),
        ({"topology": "star"}, ("topology", "ring")),
        ({"topology": "custom"}, ("topology", "ring")),
        ({"servers": "17"}, ("servers", "1 to 16")),
        ({"seed": "-1"}, ("seed", "0 or more")),
        ({"step_ms": "0"}, ("step_ms", "above 0")),
        ({"step_distribution": "normal"}, ("step_distribution", "lognormal:SIGMA")),
        ({"step_distribution": "lognormal:-1"}, ("step_distribution", "above 0")),
        ({"step_distribution": "lognormal:nan"}, ("step_distribution", "above 0")),
        ({"step_distribution": "trace:"}, ("step_distribution", "trace:FILE")),
        ({"slow": "n3"}, ("slow", "NODE=FACTOR")),
        ({"slow": "n3=0.5"}, ("slow", "1 or more")),
        ({"slow": "n16=2"}, ("slow", "n0 to n15")),
        ({"slow": "n3=2,n03=4"}, ("slow", "once")),
        ({"slow_link": "n3=inf"}, ("slow_link", "NODE=FACTOR")),
        ({"crash": "n3=20"}, ("crash", "NODE@SECONDS")),
        ({"crash": "n3@-1"}, ("crash", "NODE@SECONDS")),
        ({"detection_s": "-1"}, ("detection_s", "0 or more")),
        ({"network": "moon"}, ("network", "rack, zone, region, internet")),
        ({"latency_ms": "-1"}, ("latency_ms", "0 or more")),
        ({"bandwidth_mbps": "0"}, ("bandwidth_mbps", "above 0")),
        ({"model_bytes": "-1"}, ("model_bytes", "0 or more")),
        ({"codec": "fp8"}, ("codec", "bf16")),
        ({"overlap": "2"}, ("overlap", "0 to 1")),
        ({"learning_rate": "2"}, ("learning_rate", "below 2")),
        ({"learning_rate": "0.2", "scale_rate": "true"}, ("learning_rate", "below 0.125")),
        ({"dimension": "0"}, ("dimension", "1 to")),
        ({"condition": "0.5"}, ("condition", "1 or more")),
        ({"noise": "-1"}, ("noise", "0 or more")),
        ({"target": "0"}, ("target", "above 0")),
        ({"exchanges_per_step": "0"}, ("exchanges_per_step", "at most 16")),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_name_with_what_was_expected(
    given: dict[str, Any], said: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(**given)

    name, expected = said
    assert str(caught.value).startswith(f"{name} = ")
    assert expected in str(caught.value)
    assert f"set by --{name.removesuffix('_s').replace('_', '-')}" in str(caught.value)


def test_step_distributions_are_read() -> None:
    assert step_distribution("constant") == StepDistribution(Shape.CONSTANT)
    assert step_distribution("lognormal:0.3") == StepDistribution(Shape.LOGNORMAL, sigma=0.3)
    assert step_distribution("trace:a:b.json") == StepDistribution(Shape.TRACE, path="a:b.json")


def test_bf16_halves_what_travels() -> None:
    assert NetworkConfig(model_bytes=1000).payload_bytes == 1000
    assert NetworkConfig(model_bytes=1000, codec=CodecName.BF16).payload_bytes == 500


def test_sweeps_make_every_combination_the_last_varying_fastest() -> None:
    sweeps = [read_sweep("straggler=1,10"), read_sweep("nodes=2, 4"), read_sweep("algorithm=allreduce")]

    found = list(variations(TrainingScenario(topology="ring"), sweeps))

    assert sweeps[1] == Sweep("nodes", ("2", "4"))
    assert [(each.nodes, each.slowdowns) for each in found] == [
        (2, {1: 1.0}),
        (4, {3: 1.0}),
        (2, {1: 10.0}),
        (4, {3: 10.0}),
    ]
    assert {each.algorithm for each in found} == {Algorithm.ALLREDUCE}
    assert {each.topology for each in found} == {"ring"}
    assert list(variations(TrainingScenario(), ())) == [TrainingScenario()]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["color=red"], "nodes, algorithm, topology, straggler"),
        (["nodes="], "NAME=VALUE"),
        (["nodes=2,2"], "twice"),
        (["nodes=2", "nodes=4"], "twice"),
        (["nodes=two"], "whole number"),
        (["algorithm=sgd"], "ad-psgd"),
        (["topology=star"], "ring"),
        (["straggler=0.1"], "1 or more"),
        ([f"nodes={','.join(map(str, range(1, 600)))}", "straggler=1,2"], "1198 simulations, more than 1000"),
    ],
)
def test_a_sweep_that_cannot_be_made_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        list(variations(TrainingScenario(), [read_sweep(text) for text in texts]))
