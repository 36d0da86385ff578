"""What a comparison runs, and what it makes of the files that its nodes leave."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from adpsgd_cli.compare.command import _rates
from adpsgd_cli.compare.plan import BATCH, Case, ComparePlan, Condition
from adpsgd_cli.compare.report import Report, thinned
from adpsgd_cli.compare.row import Line, judge, read_history
from adpsgd_cli.demo.cluster import NodeProcess
from adpsgd_cli.demo.plan import Task
from adpsgd_cli.main import build
from adpsgd_node.daemon.settings import AlgorithmName
from adpsgd_node.errors import AdpsgdError
from adpsgd_node.setting import SettingError
from adpsgd_node.tasks import char_lm, digits

AD, D, ALL = AlgorithmName.AD_PSGD, AlgorithmName.D_PSGD, AlgorithmName.ALLREDUCE


class Finished:
    """What is left of a node."""

    def __init__(self, folder: Path, lines: list[Line], accuracy: float) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        texts = [
            json.dumps({"step": 1, "samples_total": line.samples_total, "elapsed_s": line.elapsed_s, "loss": line.loss})
            for line in lines
        ]
        (folder / "history.jsonl").write_text("\n".join(texts) + "\n")
        self.result = folder / "result.json"
        self.result.write_text(json.dumps({"test_accuracy": accuracy, "test_loss": 1 - accuracy}))
        self.model = folder / "model.safetensors"


def nodes(*finished: Finished) -> list[NodeProcess]:
    return cast(list[NodeProcess], list(finished))


def steady(samples_per_s: float, seconds: int) -> list[Line]:
    return [Line(float(s), int(samples_per_s * s), 1.0 / (s + 1)) for s in range(seconds + 1)]


def test_every_algorithm_runs_under_every_condition_with_every_seed() -> None:
    plan = ComparePlan(algorithms=(AD, D), stragglers=(1.0, 10.0), slow_links=(2.0,), seeds=(0, 1))
    cases = list(plan.cases())
    assert len(cases) == len({case.folder for case in cases}) == 2 * 3 * 2
    assert [str(case.condition) for case in cases[:6]] == ["none", "none", "10x", "10x", "link 2x", "link 2x"]


def test_allreduce_has_no_run_with_a_slow_link_and_the_report_says_so(tmp_path: Path) -> None:
    plan = ComparePlan(algorithms=(AD, ALL), stragglers=(1.0,), slow_links=(2.0,), output=tmp_path)
    cases = [(case.algorithm, case.condition.slow_link) for case in plan.cases()]
    assert cases == [(AD, 1.0), (ALL, 1.0), (AD, 2.0)]
    assert "cannot be slowed" in Report(plan).markdown()


def test_only_the_last_node_is_made_slow_and_allreduce_is_told_how_many_there_are() -> None:
    plan = ComparePlan(nodes=4, samples=1000, link_mbps=100.0)
    options = plan.demo(Case(ALL, Condition(straggler=10.0), 0)).options
    assert set(options) == {
        "--algorithm=allreduce",
        "--samples=1000",
        "--emulate-step-ms=50",
        "--world-size=4",
        "--slow=node-3=10",
        "--emulate-link-mbps=100",
    }
    assert "--slow-link=node-3=2" in plan.demo(Case(AD, Condition(slow_link=2.0), 0)).options
    assert not [o for o in plan.demo(Case(D, Condition(), 0)).options if "slow" in o or "world" in o]


def test_shards_are_numbered_by_node() -> None:
    plan = ComparePlan(nodes=3, shard="dirichlet:0.1").demo(Case(AD, Condition(), 5))
    assert plan.script("node-2")[-6:] == ("--shard", "dirichlet:0.1", "--shards", "3", "--shard-index", "2")
    assert "--shard" not in ComparePlan().demo(Case(AD, Condition(), 5)).script("node-2")


def test_an_algorithm_trains_at_the_rate_that_it_is_given(tmp_path: Path) -> None:
    plan = ComparePlan(algorithms=(AD, ALL), lr={AD: 4e-3}, output=tmp_path)
    assert plan.demo(Case(AD, Condition(), 0)).script("node-0")[-2:] == ("--lr", "0.004")
    assert "--lr" not in plan.demo(Case(ALL, Condition(), 0)).script("node-0")
    assert "Peak learning rate of each node: ad-psgd 0.004." in Report(plan).markdown()


@pytest.mark.parametrize(
    ("text", "rates"),
    [("", {}), ("1e-3", {AD: 1e-3, ALL: 1e-3}), ("ad-psgd=4e-3, allreduce = 2e-3", {AD: 4e-3, ALL: 2e-3})],
)
def test_rates_are_read_for_all_algorithms_or_for_some(text: str, rates: dict[AlgorithmName, float]) -> None:
    assert _rates(text, (AD, ALL)) == rates


def test_options_of_the_task_reach_its_script(tmp_path: Path) -> None:
    plan = ComparePlan(algorithms=(AD,), lr={AD: 4e-3}, task_options=("--width", "64"), output=tmp_path)
    assert plan.demo(Case(AD, Condition(), 0)).script("node-0")[-4:] == ("--lr", "0.004", "--width", "64")
    assert "Options of the task: `--width 64`." in Report(plan).markdown()


def test_a_step_has_as_many_samples_as_the_tasks_take() -> None:
    assert {Task.DIGITS: digits.parse([]).batch_size, Task.CHAR_LM: char_lm.parse([]).batch_size} == BATCH


def test_ideal_is_what_nodes_do_that_never_wait() -> None:
    plan = ComparePlan(nodes=8, emulate_step_ms=50.0)
    assert plan.ideal_samples_per_s(Condition()) == pytest.approx(8 * 32 / 0.05)
    assert plan.ideal_samples_per_s(Condition(straggler=10.0)) == pytest.approx(7.1 * 32 / 0.05)
    assert plan.ideal_samples_per_s(Condition(slow_link=10.0)) == pytest.approx(8 * 32 / 0.05)


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"nodes": 1}, "nodes"),
        ({"algorithms": ()}, "algorithms"),
        ({"stragglers": (0.5,)}, "straggler"),
        ({"stragglers": (2.0, 2.0)}, "straggler"),
        ({"slow_links": (1e9,)}, "slow_link"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"samples": 0}, "samples"),
        ({"task_options": ("--width", "64", "--lr=1")}, "task_options = '--lr=1'"),
        ({"task_options": ("--see", "1")}, "task_options = '--see'"),
        ({"task_options": ("--batch-size", "64")}, "task_options"),
        ({"lr": {AD: 0.0}}, "lr"),
        ({"lr": {AD: float("nan")}}, "lr"),
        ({"algorithms": (AD,), "lr": {ALL: 0.1}}, "lr = 'allreduce=0.1'"),
        ({"emulate_step_ms": 0.0}, "emulate_step_ms"),
        ({"time_limit_s": 0.0}, "time_limit_s"),
    ],
)
def test_unusable_option_is_refused_by_name(options: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingError, match=setting):
        ComparePlan(**options)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--straggler=fast", "straggler = 'fast'"),
        ("--seeds=-1", "seeds = '-1'"),
        ("--algorithms=sgd", "algorithms = 'sgd'"),
        ("--lr=fast", "lr = 'fast'"),
        ("--task-options='", "task_options = "),
        ("--lr=ad-psgd=1,d-psgd", "lr = 'ad-psgd=1,d-psgd'"),
        ("--lr=sgd=1", "lr = 'sgd'"),
    ],
)
def test_unreadable_list_is_refused_with_the_form_that_is_wanted(option: str, message: str) -> None:
    result = CliRunner().invoke(build(), ["compare", option])
    assert result.exit_code != 0
    assert message in str(result.exception)


def test_a_row_says_how_fast_the_middle_of_the_run_was(tmp_path: Path) -> None:
    plan = ComparePlan(nodes=2, emulate_step_ms=50.0)
    lines = [*steady(640.0, 20), Line(1000.0, 12_810, 0.04)]  # the end waits for the others
    found = nodes(Finished(tmp_path / "0", lines, 0.9), Finished(tmp_path / "1", steady(640.0, 20), 0.8))
    row = judge(plan, Case(AD, Condition(), 3), found, complete=False)
    assert row.samples_per_s == pytest.approx(640.0)
    assert row.ideal_fraction == pytest.approx(0.5)
    assert row.samples_total == 12_810
    assert (row.algorithm, row.straggler, row.seed, row.complete) == ("ad-psgd", "none", 3, False)
    assert row.test_accuracy is None, "a run that was stopped has no agreed model"
    assert 0.04 < (row.final_loss or 0.0) < 0.06


def test_nodes_without_a_history_make_a_row_of_nothing(tmp_path: Path) -> None:
    found = nodes(Finished(tmp_path / "0", [], 0.9))
    (tmp_path / "0" / "history.jsonl").unlink()
    row = judge(ComparePlan(), Case(D, Condition(10.0), 0), found, complete=False)
    assert (row.samples_per_s, row.ideal_fraction, row.final_loss, row.samples_total) == (None, None, None, 0)


def test_a_line_that_was_cut_off_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    good = json.dumps({"elapsed_s": 1.0, "samples_total": 5, "loss": None})
    path.write_text(good + "\n" + good[:20])
    (line,) = read_history(path)
    assert line.samples_total == 5
    assert line.loss != line.loss
    path.write_text("nonsense\n" + good)
    with pytest.raises(AdpsgdError, match="line 1"):
        read_history(path)


def test_a_curve_has_the_means_of_lines_that_follow_each_other() -> None:
    history = [Line(float(number), 32 * number, float(number % 2)) for number in range(1, 601)]
    points = thinned(history)
    assert len(points) == 150
    assert all(point.loss == 0.5 for point in points)
    assert (points[0].samples_total, points[-1].samples_total) == (4 * 32, 600 * 32)
    assert thinned(history[:7]) == history[:7]
    assert thinned([]) == []


def test_the_report_is_whole_after_each_run(tmp_path: Path) -> None:
    plan = ComparePlan(nodes=2, output=tmp_path / "report")
    report, case = Report(plan), Case(AD, Condition(10.0), 0)
    report.keep(case, steady(100.0, 10))
    row = judge(plan, case, nodes(Finished(tmp_path / "0", steady(100.0, 10), 0.9)), complete=False)
    report.add(row)
    folder = tmp_path / "report"
    assert json.loads((folder / "report.json").read_text())["rows"] == [row.as_dict()]
    assert "| ad-psgd | 10x | 0 | 100 |" in (folder / "report.md").read_text()
    (written,) = csv.DictReader((folder / "report.csv").open())
    assert written["algorithm"] == "ad-psgd"
    assert (folder / "report.png").stat().st_size > 1000
