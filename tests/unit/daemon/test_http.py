"""The HTTP pages over real connections on an ephemeral port."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from adpsgd_node.daemon.http import HttpServer, HttpSources
from adpsgd_node.errors import BindError
from adpsgd_node.telemetry.metrics import Metrics


class Node:
    """What the pages show; tests change it."""

    def __init__(self) -> None:
        self.metrics = Metrics(version="1.2.3")
        self.unready: str | None = None
        self.sources = HttpSources(
            metrics=self.metrics.render,
            unready=lambda: self.unready,
            status=lambda: "node-1 training\n",
            status_json=lambda: {"node": "node-1", "loss": None},
        )


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def url(node: Node) -> AsyncIterator[str]:
    server = HttpServer("127.0.0.1", 0, node.sources)
    address = await server.start()
    yield f"http://{address}"
    await server.close()


async def get(url: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, response.headers["Content-Type"], await response.text()


async def test_metrics_are_served_in_the_format_prometheus_reads(node: Node, url: str) -> None:
    node.metrics.non_finite_chunk()
    status, content_type, text = await get(f"{url}/metrics")
    assert status == 200
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    values = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    assert values["adpsgd_non_finite_chunks_total"] == 1


async def test_healthz_answers_while_the_node_is_not_ready(node: Node, url: str) -> None:
    node.unready = "no seed reached yet"
    assert (await get(f"{url}/healthz"))[0] == 200


async def test_readyz_follows_the_node_and_gives_the_reason(node: Node, url: str) -> None:
    assert (await get(f"{url}/readyz"))[::2] == (200, "ready\n")
    node.unready = "no seed reached yet"
    assert (await get(f"{url}/readyz"))[::2] == (503, "not ready: no seed reached yet\n")
    node.unready = None
    assert (await get(f"{url}/readyz"))[0] == 200


async def test_root_page_is_the_status_as_plain_text(url: str) -> None:
    assert await get(url) == (200, "text/plain; charset=utf-8", "node-1 training\n")


async def test_status_is_one_json_object(url: str) -> None:
    status, content_type, text = await get(f"{url}/status")
    assert (status, content_type) == (200, "application/json; charset=utf-8")
    assert json.loads(text) == {"node": "node-1", "loss": None}


async def test_unknown_page_is_not_found_and_other_methods_are_not_allowed(url: str) -> None:
    assert (await get(f"{url}/secrets"))[0] == 404
    async with aiohttp.ClientSession() as session, session.post(f"{url}/metrics", data=b"x") as response:
        assert response.status == 405


async def test_failing_page_does_not_take_the_others_with_it(node: Node) -> None:
    def broken() -> bytes:
        raise RuntimeError("a fault of ours")

    server = HttpServer("127.0.0.1", 0, replace(node.sources, metrics=broken))
    address = await server.start()
    try:
        assert (await get(f"http://{address}/metrics"))[0] == 500
        assert (await get(f"http://{address}/healthz"))[0] == 200
    finally:
        await server.close()


async def test_port_in_use_is_named_with_the_option_that_mends_it(node: Node, url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(BindError, match=rf"127\.0\.0\.1:{port}.*another process.*--http"):
        await HttpServer("127.0.0.1", port, node.sources).start()


async def test_address_of_another_machine_is_named_with_the_option_that_mends_it(node: Node) -> None:
    with pytest.raises(BindError, match=r"192\.0\.2\.1:0.*no such address.*--http"):
        await HttpServer("192.0.2.1", 0, node.sources).start()


async def test_closed_server_answers_no_more_frees_its_port_and_may_be_closed_again(node: Node) -> None:
    server = HttpServer("127.0.0.1", 0, node.sources)
    address = await server.start()
    await server.close()
    await server.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(f"http://{address}/healthz")
    successor = HttpServer("127.0.0.1", int(address.rpartition(":")[2]), node.sources)
    assert await successor.start() == address
    await successor.close()
