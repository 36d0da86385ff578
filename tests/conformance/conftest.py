"""What several suites of this folder start from."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import torch

from support.replicas import KINDS
from support.transport_cluster import Cluster


@pytest.fixture(params=["grpc", "memory", "slow grpc", "slow memory"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    cluster = Cluster(request.param)
    yield cluster
    await cluster.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seeded() -> None:
    torch.manual_seed(3)
    torch.set_num_threads(1)  # small tensors on shared machines: threads only wait for each other
