"""Which models the character task builds."""

from __future__ import annotations

import pytest

from adpsgd_node.tasks import char_lm


@pytest.mark.parametrize("option", ["--width=66", "--width=0", "--width=2048", "--depth=0", "--depth=99"])
def test_a_model_that_cannot_be_built_is_refused_by_its_option(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        char_lm.parse([option])
    assert option.replace("=", " ") in capsys.readouterr().err


def test_the_model_is_as_large_as_the_options_say() -> None:
    def size(*options: str) -> int:
        parsed = char_lm.parse(options)
        return sum(p.numel() for p in char_lm.Transformer(parsed.width, depth=parsed.depth).parameters())

    assert 600_000 < size() < 680_000
    assert size("--width=64", "--depth=2") < size() / 4
