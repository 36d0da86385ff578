from __future__ import annotations

from adpsgd_node.core.exchange.frame import SettleOutcome
from adpsgd_node.core.exchange.journal import (
    MAX_BARRED_INITIATORS,
    MAX_GIVEN_UP,
    MAX_OPEN_ENTRIES,
    ExchangeKey,
    Journal,
)
from adpsgd_node.ids import NodeId

ADA = NodeId("ada", 1)


def _with_three_chunks(key: ExchangeKey) -> Journal[str]:
    journal: Journal[str] = Journal()
    journal.open(key)
    for index in range(3):
        journal.record(key, index, f"undo {index}")
    return journal


def test_settle_gives_back_what_the_initiator_did_not_apply_newest_first() -> None:
    key = ExchangeKey(ADA, 4)
    journal = _with_three_chunks(key)
    assert journal.settle(key, 1) == (SettleOutcome.SETTLED, [(2, "undo 2"), (1, "undo 1")])


def test_settle_told_again_reverts_nothing_more() -> None:
    key = ExchangeKey(ADA, 4)
    journal = _with_three_chunks(key)
    journal.settle(key, 0)
    assert journal.settle(key, 0) == (SettleOutcome.SETTLED, [])


def test_settle_of_an_exchange_never_seen_is_unknown_and_bars_it() -> None:
    journal: Journal[str] = Journal()
    assert journal.settle(ExchangeKey(ADA, 9), 0) == (SettleOutcome.UNKNOWN, [])
    assert journal.barred(ExchangeKey(ADA, 9))
    assert journal.barred(ExchangeKey(ADA, 8))
    assert not journal.barred(ExchangeKey(ADA, 10))
    assert not journal.barred(ExchangeKey(NodeId("ada", 2), 1)), "a later boot counts from one again"


def test_acknowledged_chunks_are_not_reverted() -> None:
    key = ExchangeKey(ADA, 1)
    journal = _with_three_chunks(key)
    journal.acknowledge(key, 2)
    assert journal.settle(key, 2) == (SettleOutcome.SETTLED, [(2, "undo 2")])


def test_initiator_has_moved_on_when_it_opens_a_later_exchange_and_none_of_its_own_runs() -> None:
    key, later = ExchangeKey(ADA, 3), ExchangeKey(ADA, 4)
    journal = _with_three_chunks(key)
    assert journal.moved_on(later, running=set())
    assert not journal.moved_on(later, running={key})
    assert not journal.moved_on(key, running=set())
    assert not journal.moved_on(ExchangeKey(NodeId("bob", 1), 4), running=set())


def test_forgotten_boot_leaves_nothing_and_stays_barred() -> None:
    key = ExchangeKey(ADA, 3)
    journal = _with_three_chunks(key)
    assert journal.forget(ADA) == 1
    assert len(journal) == 0
    assert journal.barred(key)


def test_table_of_barred_ids_is_bounded_and_forgets_the_longest_silent() -> None:
    journal: Journal[str] = Journal()
    for boot in range(MAX_BARRED_INITIATORS + 1):
        journal.end(ExchangeKey(NodeId("ada", boot), 1), 0)
    assert not journal.barred(ExchangeKey(NodeId("ada", 0), 1))
    assert journal.barred(ExchangeKey(NodeId("ada", 1), 1))


def test_journal_is_full_at_its_limit() -> None:
    journal: Journal[str] = Journal()
    for number in range(MAX_OPEN_ENTRIES):
        assert not journal.full
        journal.open(ExchangeKey(NodeId(f"n{number}", 1), 1))
    assert journal.full


def test_initiator_of_a_given_up_exchange_is_told_that_it_was_and_nothing_is_reverted() -> None:
    key = ExchangeKey(ADA, 3)
    journal = _with_three_chunks(key)
    journal.forget(ADA)
    assert journal.settle(key, 1) == (SettleOutcome.EVICTED, [])
    assert journal.settle(key, 1) == (SettleOutcome.EVICTED, []), "told again, it hears the same"


def test_initiator_of_an_exchange_whose_plane_is_gone_is_told_that_it_went_as_with_a_reboot() -> None:
    key = ExchangeKey(ADA, 3)
    journal = _with_three_chunks(key)
    journal.forget(ADA, SettleOutcome.REBOOTED)
    assert journal.settle(key, 1) == (SettleOutcome.REBOOTED, [])


def test_memory_of_given_up_exchanges_is_bounded() -> None:
    journal: Journal[str] = Journal()
    keys = [ExchangeKey(NodeId(f"n{number}", 1), 1) for number in range(MAX_GIVEN_UP + 1)]
    for key in keys:
        journal.open(key)
        journal.forget(key.initiator)
    assert journal.settle(keys[0], 0)[0] is SettleOutcome.SETTLED, "it is barred still, though no longer known why"
    assert journal.settle(keys[1], 0)[0] is SettleOutcome.EVICTED


def test_chunks_are_counted_whether_acknowledged_or_not_until_the_exchange_ends() -> None:
    key = ExchangeKey(ADA, 3)
    journal = _with_three_chunks(key)
    journal.acknowledge(key, 2)
    assert journal.recorded(key) == 3
    assert journal.keys_of(ADA) == [key]
    journal.end(key, 3)
    assert journal.recorded(key) == 0
    assert journal.keys_of(ADA) == []
