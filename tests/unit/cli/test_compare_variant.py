"""Rows of AD-PSGD with other settings: how they are given, what is refused, and what becomes of them in a report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from adpsgd_cli.compare.plan import Case, ComparePlan, Condition
from adpsgd_cli.compare.report import Report
from adpsgd_cli.compare.row import Line, judge
from adpsgd_cli.compare.variant import KEPT, Variant, parse_variant
from adpsgd_cli.demo.cluster import NodeProcess
from adpsgd_cli.main import build
from adpsgd_node.config import settings
from adpsgd_node.daemon.settings import AlgorithmName, NodeConfig, TopologyName
from adpsgd_node.errors import ConfigError

LOCAL_STEPS = "local steps 4: --exchanges-per-step 0.25"
SPLIT = "bipartite: --pairing=bipartite --topology ring"


class Nothing:
    """A node that left nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def plan_of(*variants: Variant, output: Path = Path("compare-output")) -> ComparePlan:
    return ComparePlan(
        algorithms=(AlgorithmName.AD_PSGD, AlgorithmName.D_PSGD), stragglers=(1.0,), variants=variants, output=output
    )


def test_a_variant_is_a_label_and_options_as_a_shell_would_split_them() -> None:
    assert parse_variant(LOCAL_STEPS) == Variant("local steps 4", (("exchanges_per_step", "0.25"),))
    assert parse_variant(SPLIT).options == ("--pairing=bipartite", "--topology=ring")
    assert parse_variant("c: --topology custom --edges 'a:b, b:c' --edges c:d").options == (
        "--topology=custom",
        "--edges=a:b, b:c,c:d",
    )
    assert parse_variant("n: --no-outbound-only").options == ("--no-outbound-only",)
    assert parse_variant("n: --insecure").options == ("--insecure",)


def test_variants_stand_beside_the_algorithms_with_their_options_after_all_others() -> None:
    plan = plan_of(parse_variant(LOCAL_STEPS), parse_variant(SPLIT))
    cases = list(plan.cases())
    assert [case.title for case in cases] == ["ad-psgd", "d-psgd", "ad-psgd (local steps 4)", "ad-psgd (bipartite)"]
    assert len({case.folder for case in cases}) == 4
    assert plan.demo(cases[0]).options == plan.demo(cases[2]).options[:-1]
    assert plan.demo(cases[2]).options[-1] == "--exchanges-per-step=0.25"
    assert "--algorithm=ad-psgd" in plan.demo(cases[3]).options


def test_folders_differ_whatever_the_labels_and_conditions() -> None:
    variants = (parse_variant("x: --window 2"), parse_variant("x link: --window 3"))
    plan = ComparePlan(stragglers=(1.0, 2.0), slow_links=(2.0,), variants=variants)
    folders = [case.folder for case in plan.cases()]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no label", "variant = 'no label': expected LABEL: OPTIONS"),
        (": --window 2", "expected LABEL: OPTIONS"),
        ("a|b: --window 2", "the label of letters, digits"),
        ("x" * 41 + ": --window 2", "at most 40"),
        ("a:", "variant 'a': no options"),
        ("a: --windw 2", "variant 'a': unrecognized arguments: --windw"),
        ("a: --windo 2", "unrecognized arguments: --windo"),
        ("a: --window", "variant 'a': argument --window: expected one argument"),
        ("a: --window 'x", "variant 'a': No closing quotation"),
        ("a: --window 2 -- train.py", "variant 'a': '--' is none"),
        ("a: train.py", "variant 'a': unrecognized arguments: train.py"),
        ("a: --seed 3 --window 2 --algorithm d-psgd", "variant 'a': --algorithm, --seed: the same in all rows"),
        ("a: --emulate-step-ms 3", "variant 'a': --emulate-step-ms: the same in all rows"),
    ],
)
def test_what_is_no_variant_is_refused_by_its_label_or_its_form(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_variant(text)


def test_settings_that_must_not_vary_are_settings() -> None:
    assert {setting.name for setting in settings(NodeConfig)} >= KEPT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: --window 99", "variant 'a': window = 99: expected 1 to 64 (set by --window)"),
        ("a: --window two", "variant 'a': window = 'two': expected a whole number"),
        ("a: --pairing bipartite", "variant 'a': pairing = bipartite: expected any, as topology = complete"),
    ],
)
def test_options_that_no_node_would_take_are_refused_before_one_is_started(
    text: str, message: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(build(), ["compare", f"--variant={text}", f"--output={tmp_path / 'out'}"])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_variant_is_checked_with_the_topology_of_the_comparison() -> None:
    assert ComparePlan(topology=TopologyName.RING, variants=(parse_variant("a: --pairing bipartite"),)).variants


def test_labels_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(ConfigError, match="variant = 'a b': expected labels that differ"):
        plan_of(parse_variant("a b: --window 2"), parse_variant("A-b: --window 3"))


def test_a_report_tells_plain_rows_from_variants_everywhere(tmp_path: Path) -> None:
    variant = parse_variant(LOCAL_STEPS)
    plan = plan_of(variant, output=tmp_path)
    report = Report(plan)
    for case in (Case(AlgorithmName.AD_PSGD, Condition(), 0), Case(AlgorithmName.AD_PSGD, Condition(), 0, variant)):
        report.keep(case, [Line(0.0, 0, 1.0), Line(1.0, 10, 0.5)])
        report.add(judge(plan, case, cast(list[NodeProcess], [Nothing(tmp_path)]), complete=False))
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [(row["algorithm"], row["variant"]) for row in rows] == [("ad-psgd", ""), ("ad-psgd", "local steps 4")]
    assert report.result()["variants"] == {"local steps 4": "--exchanges-per-step=0.25"}
    text = (tmp_path / "report.md").read_text()
    assert "| ad-psgd | none |" in text
    assert "| ad-psgd (local steps 4) | none |" in text
    assert "local steps 4: `--exchanges-per-step=0.25`" in text
    with (tmp_path / "report.csv").open() as file:
        assert [row["variant"] for row in csv.DictReader(file)] == ["", "local steps 4"]
