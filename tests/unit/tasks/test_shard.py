"""Shards of a training set: disjoint, complete, the same on every node, and as skewed as they are asked to be."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adpsgd_node.tasks import char_lm, digits
from adpsgd_node.tasks.shard import (
    Sharding,
    ShardKind,
    add_shard_options,
    dirichlet_shards,
    iid_shards,
    sharding_of,
)

LABELS = torch.arange(1437) % 10
"""About as many samples and labels as the digits have."""

Cut = Callable[[int, int], list[Tensor]]


def _iid(shards: int, seed: int) -> list[Tensor]:
    return iid_shards(len(LABELS), shards, seed)


def _skewed(shards: int, seed: int) -> list[Tensor]:
    return dirichlet_shards(LABELS, shards, 0.1, seed)


def _one_label_each(shards: int, seed: int) -> list[Tensor]:
    return dirichlet_shards(LABELS, shards, 1e-300, seed)


cuts = pytest.mark.parametrize("cut", [_iid, _skewed, _one_label_each])


def largest_part(shard: Tensor) -> float:
    """Say how much of a shard is of its most frequent label."""
    return float(torch.bincount(LABELS[shard]).max() / len(shard))


@cuts
@pytest.mark.parametrize("shards", [1, 2, 7, 8, 100])
def test_shards_are_disjoint_and_cover_everything(cut: Cut, shards: int) -> None:
    parts = cut(shards, 3)
    assert len(parts) == shards
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(LABELS)))


@cuts
def test_shards_are_of_one_size(cut: Cut) -> None:
    sizes = {len(part) for part in cut(8, 3)}
    assert sizes == {1437 // 8, 1437 // 8 + 1}


@cuts
def test_the_cut_follows_from_the_seed(cut: Cut) -> None:
    first, again, other = cut(4, 5), cut(4, 5), cut(4, 6)
    assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@cuts
def test_neither_takes_nor_disturbs_random_numbers_of_others(cut: Cut) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    cut(4, 5)
    assert torch.equal(torch.rand(3), expected)


def test_positions_of_a_shard_are_int64_and_sorted() -> None:
    for shard in (*_iid(3, 0), *_skewed(3, 0)):
        assert shard.dtype is torch.int64
        assert torch.equal(shard, shard.sort().values)


def test_the_smaller_alpha_the_fewer_labels_a_shard_has() -> None:
    def mean_part(alpha: float) -> float:
        shards = [shard for seed in range(5) for shard in dirichlet_shards(LABELS, 8, alpha, seed)[:4]]
        return sum(map(largest_part, shards)) / len(shards)

    even = mean_part(1e6)
    assert even < 0.15
    assert even < mean_part(10.0) < mean_part(1.0) < mean_part(0.1)
    assert mean_part(0.1) > 0.6


def test_first_shard_of_the_smallest_alpha_has_one_label_as_long_as_it_lasts() -> None:
    counts = torch.bincount(LABELS[_one_label_each(20, 1)[0]], minlength=10)
    assert int((counts > 0).sum()) == 1


def test_a_label_that_is_nowhere_does_no_harm() -> None:
    labels = torch.tensor([4, 4, 9, 9, 9, 9])
    parts = dirichlet_shards(labels, 3, 0.5, 0)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(6))


def test_each_node_takes_its_own_shard_and_global_means_all() -> None:
    taken = [Sharding(kind=ShardKind.IID, shards=3, index=index).positions(LABELS, 2) for index in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(taken, _iid(3, 2), strict=True))
    skewed = Sharding(kind=ShardKind.DIRICHLET, alpha=0.1, shards=4, index=3).positions(LABELS, 2)
    assert torch.equal(skewed, _skewed(4, 2)[3])
    assert torch.equal(Sharding().positions(LABELS, 2), torch.arange(len(LABELS)))


def parsed(*arguments: str) -> Sharding:
    parser = argparse.ArgumentParser()
    add_shard_options(parser)
    return sharding_of(parser, parser.parse_args(arguments))


def test_options_name_kind_number_and_index() -> None:
    assert parsed() == parsed("--shard=global") == Sharding()
    assert parsed("--shard=iid", "--shards=8", "--shard-index=7") == Sharding(kind=ShardKind.IID, shards=8, index=7)
    skewed = parsed("--shard=dirichlet:0.1", "--shards=2", "--shard-index=0")
    assert skewed == Sharding(kind=ShardKind.DIRICHLET, alpha=0.1, shards=2, index=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard=idd"], "--shard idd: expected global, iid or dirichlet:ALPHA"),
        (["--shard=dirichlet"], "--shard dirichlet: expected"),
        (["--shard=dirichlet:"], "--shard dirichlet:: expected"),
        (["--shard=dirichlet:0"], "--shard dirichlet:0: expected"),
        (["--shard=dirichlet:nan"], "--shard dirichlet:nan: expected"),
        (["--shard=dirichlet:inf"], "--shard dirichlet:inf: expected"),
        (["--shard=iid:3"], "--shard iid:3: expected"),
        (["--shard=iid"], "--shards 0: --shard iid needs a number from 1"),
        (["--shard=iid", "--shards=4"], "--shard-index -1: give each node its own, from 0 to 3"),
        (["--shard=iid", "--shards=4", "--shard-index=4"], "--shard-index 4: give each node its own, from 0 to 3"),
    ],
)
def test_unusable_options_are_refused_by_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(*arguments)
    assert message in capsys.readouterr().err


def test_shards_of_the_digits_hold_only_their_share_of_labels() -> None:
    _, labels, _, _ = digits.load_data()
    parts = dirichlet_shards(labels, 4, 0.1, 0)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    assert (torch.bincount(labels[parts[0]], minlength=10) == 0).sum() >= 5


def test_a_digits_shard_smaller_than_a_batch_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="this shard has 14 images, --batch-size 32: choose fewer --shards"):
        digits.main(["--shard=iid", "--shards=100", "--shard-index=99"])


def test_windows_of_a_text_shard_come_from_its_own_blocks() -> None:
    text = torch.arange(40 * char_lm.BLOCK_BYTES + 5) // char_lm.BLOCK_BYTES
    seen = []
    for index in range(2):
        sharding = Sharding(kind=ShardKind.IID, shards=2, index=index)
        blocks = char_lm.own_blocks(text, sharding, 0)
        assert blocks is not None
        windows, following = char_lm.random_windows(text, 500, torch.Generator().manual_seed(0), blocks)
        assert windows.shape == following.shape == (500, char_lm.CONTEXT)
        assert torch.equal(windows[:, 1:], following[:, :-1])
        assert (windows == windows[:, :1]).all()
        assert (following == windows[:, :1]).all()
        seen.append(set(windows.unique().tolist()))
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(40))


def test_skewed_text_shards_are_of_few_ranges_of_the_text() -> None:
    text = torch.zeros(1000 * char_lm.BLOCK_BYTES, dtype=torch.int64)
    labels = char_lm.block_labels(text)
    assert torch.equal(torch.bincount(labels), torch.full((char_lm.RANGES,), 100))
    assert torch.equal(labels, labels.sort().values)
    blocks = char_lm.own_blocks(text, Sharding(kind=ShardKind.DIRICHLET, alpha=0.01, shards=10, index=0), 0)
    assert blocks is not None
    assert len(blocks) == 100
    assert len(labels[blocks].unique()) <= 3


def test_text_with_fewer_blocks_than_shards_is_refused() -> None:
    text = torch.zeros(3 * char_lm.BLOCK_BYTES, dtype=torch.int64)
    with pytest.raises(SystemExit, match="the text has 3 blocks of 1024 bytes: choose that many --shards at most"):
        char_lm.own_blocks(text, Sharding(kind=ShardKind.IID, shards=4, index=0), 0)


def test_without_shards_windows_come_from_anywhere_in_the_text() -> None:
    text = torch.arange(300)
    assert char_lm.own_blocks(text, Sharding(), 0) is None
    windows, following = char_lm.random_windows(text, 400, torch.Generator().manual_seed(0))
    assert torch.equal(windows + 1, following)
    assert int(windows.min()) == 0
    assert int(following.max()) == 299
