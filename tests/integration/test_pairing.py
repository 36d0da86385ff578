"""Real nodes on a ring, split into those that start exchanges and those that answer them."""

from __future__ import annotations

import itertools

from adpsgd_node.checkpoint.model_file import read_tensors
from adpsgd_node.core.membership.member import Phase
from support.node_process import Nodes, relative_distance

TOLERANCE = 1e-3
NAMES = ("n0", "n1", "n2", "n3")
ENOUGH = 20
"""Exchanges after which a node that also starts some, or also answers some, would have done so."""


async def test_passive_nodes_start_nothing_while_they_train_and_all_end_with_the_same_model(nodes: Nodes) -> None:
    options = ["--topology=ring", "--pairing=bipartite", "--epochs=4", f"--tolerance={TOLERANCE}"]
    group = await nodes.start_together(*NAMES, options=options)
    for active in group[::2]:
        status = await active.wait_for(lambda s: s.exchanges_initiated >= ENOUGH, "exchanges started")
        assert status.self_member.phase is Phase.TRAINING, "the run is too short to say"
        assert status.exchanges_responded == 0
    for passive in group[1::2]:
        status = await passive.wait_for(lambda s: s.exchanges_responded >= ENOUGH, "exchanges answered")
        assert status.self_member.phase is Phase.TRAINING, "the run is too short to say"
        assert status.exchanges_initiated == 0

    for node in group:
        assert await node.ended() == 0, node.text()
        assert node.events("step")
        assert node.events("finished")[0]["members"] == len(NAMES)
        assert "do not agree" not in node.text()
    models = [read_tensors(node.model)["weight"] for node in group]
    assert max(relative_distance(one, other) for one, other in itertools.combinations(models, 2)) <= TOLERANCE
