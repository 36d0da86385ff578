"""What all tests of this folder have in common."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def reproducible() -> None:
    """Fix what torch draws, and keep it to one thread: small tensors would only wait for each other."""
    torch.manual_seed(11)
    torch.set_num_threads(1)
