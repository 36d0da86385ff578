"""Time one exchange of a whole model between two processes of this machine, beside two other ways to average it.

    python benchmarks/exchange.py --megabytes 200 --repeats 5

The contenders take turns (A B C D, A B C D, ...), so that whatever else the machine does meets all of them alike:
compare ratios within one run, never seconds of different runs. A round's figure is the slower side's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

import machine
import side
from node_side import work_node

from adpsgd_node.daemon.settings import ExchangeConfig

ANSWER_LIMIT_S = 120.0
"""Longest wait for any one answer of a worker."""

FP32_ROUNDING = 4 * 2.0**-24
"""Largest error allowed, relative to the largest value: a few roundings of fp32."""
BF16_ROUNDING = 2.0**-8
"""Both sides' values are rounded to 8 bits of significand once; each error counts half."""

GLOO = "gloo all_reduce"
DEFAULT = ExchangeConfig()


class Pair:
    """Two worker processes, the sides of one contender."""

    def __init__(self, work: Callable[[side.Setup, Connection], None], settings: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in (0, 1):
            ours, theirs = context.Pipe()
            setup = side.Setup(rank=rank, **settings)
            process = context.Process(target=work, args=(setup, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._collect()

    def ask(self, word: str, argument: object) -> list[Any]:
        """Say one word to both sides at once; give both answers."""
        for pipe in self._pipes:
            pipe.send((word, argument))
        return self._collect()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10.0)
            process.kill()

    def _collect(self) -> list[Any]:
        answers = []
        for pipe in self._pipes:
            if not pipe.poll(ANSWER_LIMIT_S):
                raise TimeoutError(f"a worker did not answer in {ANSWER_LIMIT_S:g} s")
            answers.append(pipe.recv())
        return answers


class Contender:
    """One line of the table."""

    def __init__(
        self,
        name: str,
        pair: Pair,
        tolerance: float | None,
        *,
        word: str = "run",
        argument: str = "",
        unfolded: bool = False,
    ) -> None:
        self.name = name
        self.seconds: list[float] = []
        self._pair = pair
        self._tolerance = tolerance
        self._word = word
        self._argument = argument
        self._unfolded = unfolded

    def round(self, *, keep: bool) -> None:
        """Average once; check the result, and keep the time unless it was the warm-up."""
        self._pair.ask("reset", self._unfolded)
        seconds = max(self._pair.ask(self._word, self._argument))
        if self._tolerance is not None:
            error = max(self._pair.ask("error", None))
            assert error <= self._tolerance, f"{self.name}: error {error:g} exceeds {self._tolerance:g}"
        if keep:
            self.seconds.append(seconds)

    def summary(self, baseline_s: float) -> dict[str, float | list[float]]:
        middle = statistics.median(self.seconds)
        return {
            "median_s": middle,
            "min_s": min(self.seconds),
            "max_s": max(self.seconds),
            "ratio_to_gloo": middle / baseline_s,
            "seconds": self.seconds,
        }


def main() -> None:
    options = parse()
    occupation = machine.Occupation()
    with tempfile.TemporaryDirectory(prefix="adpsgd-bench-") as folder, ExitStack() as stack:
        contenders = enter(options, folder, stack)
        for number in range(options.repeats + 1):
            for one in contenders:
                one.round(keep=number > 0)
            progress(f"round {number} of {options.repeats}" + ("" if number else " (warm-up)"))
    baseline_s = statistics.median(next(one.seconds for one in contenders if one.name == GLOO))
    result = {
        "benchmark": "exchange",
        "megabytes": options.megabytes,
        "tensors": options.tensors,
        "chunk_bytes": options.chunk_bytes,
        "window": options.window,
        "repeats": options.repeats,
        "commit": machine.commit(),
        "machine": machine.describe(),
        "cores_used_by_others": occupation.by_others(),
        "contenders": {one.name: one.summary(baseline_s) for one in contenders},
    }
    print(table(result))
    if options.json:
        print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time exchanges beside plain sockets and gloo's all_reduce.")
    parser.add_argument("--megabytes", type=float, default=200, help="of fp32 parameters, 10^6 bytes each")
    parser.add_argument("--tensors", type=int, default=1, help="cut the parameters into so many tensors")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds, after one warm-up")
    parser.add_argument("--chunk-bytes", type=int, default=DEFAULT.chunk_bytes)
    parser.add_argument("--window", type=int, default=DEFAULT.window)
    parser.add_argument("--detail", action="store_true", help="also time parts of our exchange by themselves")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser.parse_args()


def enter(options: argparse.Namespace, folder: str, stack: ExitStack) -> list[Contender]:
    """Start all workers; give the contenders in the order of their turns."""
    settings = {
        "elements": int(options.megabytes * 1e6) // 4,
        "tensors": options.tensors,
        "chunk_bytes": options.chunk_bytes,
        "window": options.window,
        "folder": folder,
    }
    pairs = [Pair(work, settings) for work in (side.work_plain, side.work_gloo, work_node)]
    for pair in pairs:
        stack.callback(pair.close)
    plain, gloo, node = pairs
    contenders = [
        Contender("plain sockets", plain, FP32_ROUNDING),
        Contender(GLOO, gloo, FP32_ROUNDING),
        Contender("adpsgd-node fp32", node, FP32_ROUNDING, argument="fp32"),
        Contender("adpsgd-node bf16", node, BF16_ROUNDING, argument="bf16"),
    ]
    if options.detail:
        contenders += [
            Contender("adpsgd-node fp32, all unfolded", node, FP32_ROUNDING, argument="fp32", unfolded=True),
            Contender("its transport alone", node, None, word="floor"),
            Contender("its trainer's fold", node, None, word="fold", unfolded=True),
        ]
    return contenders


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['megabytes']:g} MB of fp32 between two processes, averaged on both; medians of {result['repeats']}; "
        f"chunks of {result['chunk_bytes'] // 1024} KiB, window {result['window']}; commit {result['commit']}; "
        f"{result['machine']}; others used {result['cores_used_by_others']:.1f} cores",
        "",
        "| way | median s | min s | max s | ratio to gloo |",
        "|---|---|---|---|---|",
    ]
    for name, one in result["contenders"].items():
        figures = f"{one['median_s']:.3f} | {one['min_s']:.3f} | {one['max_s']:.3f} | {one['ratio_to_gloo']:.2f}"
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
