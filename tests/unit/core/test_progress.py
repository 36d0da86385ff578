from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from adpsgd_node.core.progress import Progress, ProgressEntry, Totals
from adpsgd_node.ids import NodeId

A, B = NodeId("a", 1), NodeId("b", 1)

entry = st.builds(
    ProgressEntry,
    st.builds(NodeId, st.sampled_from("abc"), st.integers(1, 2)),
    st.integers(0, 100),
    st.integers(0, 100),
)


def test_totals_sum_over_all_lives_of_all_nodes() -> None:
    progress = Progress()
    progress.merge([ProgressEntry(A, 3, 30), ProgressEntry(NodeId("a", 2), 1, 10), ProgressEntry(B, 2, 20)])
    assert progress.totals() == Totals(6, 60)


def test_older_numbers_change_nothing() -> None:
    progress = Progress()
    assert progress.merge([ProgressEntry(A, 3, 30)])
    assert not progress.merge([ProgressEntry(A, 2, 20)])
    assert progress.of(A) == ProgressEntry(A, 3, 30)


def test_every_entry_of_one_merge_counts_even_after_one_that_grew() -> None:
    progress = Progress()
    progress.merge([ProgressEntry(A, 1, 1), ProgressEntry(B, 1, 1)])
    assert progress.totals() == Totals(2, 2)


@given(st.lists(entry, max_size=12), st.randoms(use_true_random=False))
def test_merging_in_any_order_and_repeatedly_ends_alike(entries: list[ProgressEntry], order: random.Random) -> None:
    one, other = Progress(), Progress()
    one.merge(entries)
    shuffled = entries * 2
    order.shuffle(shuffled)
    for each in shuffled:
        other.merge([each])
    assert one.entries() == other.entries()
    assert one.totals() == other.totals()
    assert one.totals().steps == sum(each.steps for each in one.entries())


def test_full_counter_refuses_new_lives_and_says_so_but_known_ones_go_on() -> None:
    progress = Progress(limit=1)
    progress.merge([ProgressEntry(A, 1, 1), ProgressEntry(B, 1, 1)])
    progress.merge([ProgressEntry(A, 2, 2)])
    assert progress.totals() == Totals(2, 2)
    assert progress.refused == 1


def test_sample_holds_the_most_recent_changes_and_no_repeats() -> None:
    progress = Progress()
    nodes = [NodeId(f"n{index}", 1) for index in range(100)]
    progress.merge([ProgressEntry(node, 1, 1) for node in nodes])
    progress.merge([ProgressEntry(nodes[5], 2, 2)])
    sample = progress.sample(16, random.Random(1), without=nodes[99])
    assert sample[0] == ProgressEntry(nodes[5], 2, 2)
    assert 8 <= len({each.node for each in sample}) == len(sample) <= 16
    assert nodes[99] not in {each.node for each in sample}


def test_repeated_samples_reach_entries_that_no_longer_change() -> None:
    progress = Progress()
    nodes = [NodeId(f"n{index:03d}", 1) for index in range(100)]
    progress.merge([ProgressEntry(node, 1, 1) for node in nodes])
    rng = random.Random(1)
    seen = {each.node for _ in range(200) for each in progress.sample(16, rng)}
    assert seen == set(nodes)


def test_sample_of_few_entries_is_all_of_them_but_the_one_left_out() -> None:
    progress = Progress()
    progress.merge([ProgressEntry(A, 1, 1), ProgressEntry(B, 1, 1)])
    assert progress.sample(16, random.Random(1), without=A) == (ProgressEntry(B, 1, 1),)
