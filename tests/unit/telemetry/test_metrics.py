"""What the metrics export, and that docs/metrics.md says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adpsgd_node.core.exchange.frame import DeclineReason
from adpsgd_node.core.exchange.outcome import Outcome, Role, SettleEnd
from adpsgd_node.core.membership.member import MemberState, Phase
from adpsgd_node.telemetry.metrics import Metrics, PacketFault

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3")


def families(metrics: Metrics) -> dict[str, tuple[str, frozenset[str]]]:
    """Name, type and labels of all that is exported; a counter under the name of its samples."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, frozenset(labels))
    return found


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for candidate in family.samples:
            if candidate.name == name and candidate.labels == labels:
                return candidate.value
    raise AssertionError(f"{name}{labels} is not exported")


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(r"^\| `(adpsgd_\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_documentation_lists_exactly_what_is_exported_with_type_and_labels(metrics: Metrics) -> None:
    assert documented() == families(metrics)


def test_every_label_value_is_documented(metrics: Metrics) -> None:
    text = DOCUMENT.read_text()
    for family in text_string_to_metric_families(metrics.render().decode()):
        for exported in family.samples:
            for label in exported.labels.keys() - {"le", "version"}:
                assert f"`{exported.labels[label]}`" in text, f"{family.name}: {exported.labels[label]}"


def test_every_label_combination_is_exported_before_anything_happened(metrics: Metrics) -> None:
    for role in Role:
        for outcome in Outcome:
            assert sample(metrics, "adpsgd_exchanges_total", role=role.value, outcome=outcome.value) == 0
        for reason in DeclineReason:
            assert sample(metrics, "adpsgd_declines_total", role=role.value, reason=reason.name.lower()) == 0
    for end in SettleEnd:
        assert sample(metrics, "adpsgd_settles_total", outcome=end.value) == 0
    for state in MemberState:
        assert sample(metrics, "adpsgd_members", state=state.name.lower()) == 0
    for fault in PacketFault:
        assert sample(metrics, "adpsgd_rejected_packets_total", reason=fault.value) == 0


def test_complete_exchange_counts_time_bytes_and_steps(metrics: Metrics) -> None:
    metrics.exchange_ended(
        role=Role.INITIATOR, outcome=Outcome.COMPLETE, seconds=0.5, sent_bytes=100, received_bytes=90, steps_during=3
    )
    assert sample(metrics, "adpsgd_exchanges_total", role="initiator", outcome="complete") == 1
    assert sample(metrics, "adpsgd_exchange_seconds_sum", role="initiator") == 0.5
    assert sample(metrics, "adpsgd_exchange_seconds_count", role="responder") == 0
    assert sample(metrics, "adpsgd_bytes_sent_total") == 100
    assert sample(metrics, "adpsgd_bytes_received_total") == 90
    assert sample(metrics, "adpsgd_steps_during_exchange_sum") == 3


def test_broken_exchange_counts_its_bytes_but_not_its_time(metrics: Metrics) -> None:
    metrics.exchange_ended(
        role=Role.RESPONDER, outcome=Outcome.BROKEN, seconds=9.0, sent_bytes=10, received_bytes=20, steps_during=7
    )
    assert sample(metrics, "adpsgd_exchanges_total", role="responder", outcome="broken") == 1
    assert sample(metrics, "adpsgd_bytes_sent_total") == 10
    assert sample(metrics, "adpsgd_bytes_received_total") == 20
    assert sample(metrics, "adpsgd_exchange_seconds_count", role="responder") == 0
    assert sample(metrics, "adpsgd_steps_during_exchange_count") == 0


def test_steps_follow_the_trainers_own_counter(metrics: Metrics) -> None:
    metrics.trained(steps=5, samples=160, loss=1.5, accuracy=0.25)
    metrics.trained(steps=5, samples=160, loss=1.5, accuracy=0.25)
    metrics.trained(steps=9, samples=288, loss=1.25, accuracy=0.5)
    assert sample(metrics, "adpsgd_steps_total") == 9
    assert sample(metrics, "adpsgd_samples_total") == 288
    assert sample(metrics, "adpsgd_loss") == 1.25
    assert sample(metrics, "adpsgd_accuracy") == 0.5


def test_steps_of_a_trainer_that_counts_anew_are_added(metrics: Metrics) -> None:
    metrics.trained(steps=9, samples=288, loss=1.0, accuracy=0.5)
    metrics.trained(steps=2, samples=64, loss=2.0, accuracy=0.5)
    assert sample(metrics, "adpsgd_steps_total") == 11
    assert sample(metrics, "adpsgd_samples_total") == 352


def test_members_no_longer_counted_fall_back_to_zero(metrics: Metrics) -> None:
    metrics.members_counted({MemberState.ALIVE: 4}, {Phase.TRAINING: 4})
    metrics.members_counted({MemberState.ALIVE: 3, MemberState.DEAD: 1}, {Phase.SETTLING: 3})
    assert sample(metrics, "adpsgd_members", state="alive") == 3
    assert sample(metrics, "adpsgd_members", state="dead") == 1
    assert sample(metrics, "adpsgd_member_phases", phase="training") == 0
    assert sample(metrics, "adpsgd_member_phases", phase="settling") == 3


def test_trainer_is_up_between_start_and_exit_and_only_restarts_are_counted(metrics: Metrics) -> None:
    metrics.trainer_started(restarted=False)
    assert sample(metrics, "adpsgd_trainer_up") == 1
    metrics.trainer_exited()
    assert sample(metrics, "adpsgd_trainer_up") == 0
    assert sample(metrics, "adpsgd_trainer_restarts_total") == 0
    metrics.trainer_started(restarted=True)
    assert sample(metrics, "adpsgd_trainer_up") == 1
    assert sample(metrics, "adpsgd_trainer_restarts_total") == 1


def test_each_remaining_event_moves_its_own_metric(metrics: Metrics) -> None:
    metrics.stepped(0.02)
    metrics.run_progressed(steps=10, samples=320, target_samples=640)
    metrics.declined(Role.RESPONDER, DeclineReason.BUSY)
    metrics.settled(SettleEnd.REBOOTED)
    metrics.non_finite_chunk()
    metrics.consensus_measured(0.125)
    metrics.plane_observed(unfolded_chunks=3, unsettled_exchanges=2, steps_since_exchange=4)
    metrics.packet_rejected(PacketFault.RUN)
    metrics.serving(insecure=True)
    metrics.loop_lagged(0.003)
    assert sample(metrics, "adpsgd_step_seconds_bucket", le="0.01") == 0
    assert sample(metrics, "adpsgd_step_seconds_bucket", le="0.025") == 1
    assert sample(metrics, "adpsgd_run_steps") == 10
    assert sample(metrics, "adpsgd_run_samples") == 320
    assert sample(metrics, "adpsgd_run_target_samples") == 640
    assert sample(metrics, "adpsgd_declines_total", role="responder", reason="busy") == 1
    assert sample(metrics, "adpsgd_settles_total", outcome="rebooted") == 1
    assert sample(metrics, "adpsgd_non_finite_chunks_total") == 1
    assert sample(metrics, "adpsgd_consensus_distance") == 0.125
    assert sample(metrics, "adpsgd_unfolded_chunks") == 3
    assert sample(metrics, "adpsgd_unsettled_exchanges") == 2
    assert sample(metrics, "adpsgd_steps_since_exchange") == 4
    assert sample(metrics, "adpsgd_rejected_packets_total", reason="run") == 1
    assert sample(metrics, "adpsgd_insecure") == 1
    assert sample(metrics, "adpsgd_event_loop_lag_seconds_count") == 1
    assert sample(metrics, "adpsgd_build_info", version="1.2.3") == 1


def test_two_nodes_in_one_process_do_not_share_metrics() -> None:
    one, other = Metrics(version="1"), Metrics(version="1")
    one.non_finite_chunk()
    assert sample(other, "adpsgd_non_finite_chunks_total") == 0
