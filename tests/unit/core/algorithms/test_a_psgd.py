from __future__ import annotations

import pytest

from adpsgd_node.core.algorithms.a_psgd import MAX_WORKERS, Ledger, shards
from adpsgd_node.ids import NodeId

A, B = NodeId("a", 1), NodeId("b", 1)


@pytest.mark.parametrize(("chunks", "servers"), [(1, 1), (1, 3), (7, 2), (64, 5), (3, 64)])
def test_every_chunk_has_one_server_and_none_has_much_more_than_another(chunks: int, servers: int) -> None:
    shared = shards(chunks, [f"s{number}" for number in range(servers)])
    assert [index for shard in shared.values() for index in shard] == list(range(chunks))
    assert max(map(len, shared.values())) - min(map(len, shared.values())) <= 1


def test_a_push_that_comes_again_is_not_due() -> None:
    ledger = Ledger()
    assert ledger.due(A, 1, 0)
    assert not ledger.due(A, 1, 0)
    assert ledger.due(A, 1, 1)
    assert ledger.due(B, 1, 0)
    assert ledger.due(A, 2, 0)
    assert not ledger.due(A, 1, 0), "an older one that was under way"


def test_another_life_of_a_worker_begins_anew() -> None:
    ledger = Ledger()
    assert ledger.due(A, 9, 0)
    assert ledger.due(NodeId("a", 2), 1, 0)


def pushed(ledger: Ledger, worker: NodeId, number: int, seen: int) -> int | None:
    ledger.due(worker, number, 0)
    return ledger.complete(worker, number, seen)


def test_staleness_is_what_others_pushed_since_the_worker_had_pulled() -> None:
    ledger = Ledger()
    assert pushed(ledger, A, 1, 0) == 0
    assert pushed(ledger, B, 1, 0) == 1
    assert pushed(ledger, A, 2, 1) == 1
    assert pushed(ledger, A, 3, 3) == 0
    assert ledger.version == 4


def test_a_push_that_is_completed_again_counts_once() -> None:
    ledger = Ledger()
    assert pushed(ledger, A, 1, 0) == 0
    assert pushed(ledger, A, 1, 0) is None
    assert ledger.version == 1


def test_a_push_of_nothing_is_none() -> None:
    ledger = Ledger()
    assert ledger.complete(A, 1, 0) is None
    assert ledger.version == 0


def test_only_so_many_workers_are_remembered() -> None:
    ledger = Ledger()
    assert ledger.due(A, 5, 0)
    for number in range(MAX_WORKERS):
        ledger.due(NodeId(f"w{number}", 1), 1, 0)
    assert ledger.due(A, 5, 0), "it was forgotten: the one that pushed longest ago"
    assert not ledger.due(NodeId(f"w{MAX_WORKERS - 1}", 1), 1, 0)
