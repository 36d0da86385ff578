from __future__ import annotations

from adpsgd_node.core.chunk_pool import ChunkPool


def test_chunks_are_taken_in_order_until_none_is_left() -> None:
    pool = ChunkPool(5)
    assert [pool.take(2), pool.take(2), pool.take(2)] == [range(2), range(2, 4), range(4, 5)]
    assert pool.unasked == 0


def test_what_is_put_back_is_taken_again_lowest_first_and_never_across_a_gap() -> None:
    pool = ChunkPool(10)
    pool.take(8)
    pool.put_back([1, 2, 4])
    assert pool.unasked == 5
    assert [pool.take(9), pool.take(9), pool.take(9)] == [range(1, 3), range(4, 5), range(8, 10)]


def test_a_chunk_that_comes_twice_counts_once() -> None:
    pool = ChunkPool(3)
    assert pool.arrive(1)
    assert not pool.arrive(1)
    assert pool.left == 2
    assert pool.here(1)
    assert pool.missing(0, 3) == [0, 2]
