"""Peers that speak garbage: the node refuses it, counts it, says so once, and trains on."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator

import grpc
import numpy as np

from adpsgd_node.core.exchange.frame import Accept, Chunk, Close, CodecName, Frame, Open, Settle
from adpsgd_node.core.membership.member import Member, MemberState, Phase
from adpsgd_node.core.membership.packet import JoinRequest, Packet
from adpsgd_node.ids import PROTOCOL_VERSION, Address, NodeId, RunId
from adpsgd_node.net.transport import Method, StreamMethod
from adpsgd_node.plane import Layout
from adpsgd_node.wire.fetch import FetchRequest, encode_fetch
from adpsgd_node.wire.framing import decode_frame, encode_chunk, encode_frame, encode_settle
from adpsgd_node.wire.limits import MAX_MESSAGE_BYTES
from adpsgd_node.wire.membership import encode_join_request, encode_packet
from adpsgd_node.wire.model import OfferRequest, encode_offer_request
from support.http_page import page
from support.node_process import NodeProcess, Nodes
from support.numpy_trainer import tensors
from support.stranger import Stranger, mutations, stranger

RUN = RunId("test")
WHO = NodeId("a-stranger", 1)
NOWHERE = Address("127.0.0.1:1")
CHUNK_BYTES = 1 << 20
LAYOUT = Layout.build(tensors(64), CHUNK_BYTES)
ATTEMPTS = 50
REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_bytes_that_are_no_messages_are_refused_and_counted(nodes: Nodes) -> None:
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=15"])
    status = await first.training()
    rng = random.Random(1)
    async with stranger(status.self_member.address) as peer:
        for noise in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            rng.randbytes(100_000),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0",
        ):
            await peer.shout(noise)
        silent = asyncio.create_task(peer.open_silently(StreamMethod.CONVERSE))
        for size in (1, 100, 10_000, 1 << 20, MAX_MESSAGE_BYTES + 1):
            for method in Method:
                assert await peer.call(method, rng.randbytes(size)) in REFUSED, (method, size)
            for stream in StreamMethod:
                code, _ = await peer.converse(stream, [rng.randbytes(size)])
                assert code in REFUSED, (stream, size)
        assert await silent is grpc.StatusCode.ABORTED
    metrics = await page(status.http_address, "/metrics")
    assert _rejected(metrics, "malformed") >= 3 * len(Method)
    assert _rejected(metrics, "oversize") >= 1
    assert "is something else talking to this port?" in first.text()
    await _unharmed(first, second)
    for node in (first, second):
        assert await node.ended() == 0, node.text()
        assert node.events("finished")[0]["members"] == 2


async def test_messages_that_are_almost_right_do_no_harm(nodes: Nodes) -> None:
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=1000"])
    status = await first.training()
    rng = random.Random(2)
    async with stranger(status.self_member.address) as peer:
        for method, message in _calls(status.self_member.id).items():
            for request in mutations(message, 60, rng):
                assert await peer.call(method, request) is not grpc.StatusCode.INTERNAL, (method, request)
        openings = {
            StreamMethod.CONVERSE: encode_frame(_open(status.self_member.id, 1)),
            StreamMethod.FETCH: encode_fetch(FetchRequest(PROTOCOL_VERSION, RUN, LAYOUT.schema)),
        }
        for stream, opening in openings.items():
            for message in mutations(opening, 30, rng):
                code, _ = await peer.converse(stream, [message])
                assert code is not grpc.StatusCode.INTERNAL, (stream, message)
    await _unharmed(first, second)


async def test_an_exchange_that_goes_wrong_after_its_opening_leaves_nothing_behind(nodes: Nodes) -> None:
    first, second = await nodes.start_run("n0", "n1", options=["--epochs=1000"])
    status = await first.training()
    chunk = np.full(LAYOUT.elements, np.nan, np.float32)
    wrong = [
        b"garbage",
        encode_chunk(0, 0, chunk[:-1]).message,
        encode_chunk(7, 0, chunk).message,
        encode_chunk(0, 5, chunk).message,
        encode_frame(Close(3)),
        encode_frame(Accept(0)),
        encode_frame(_open(status.self_member.id, 99)),
        encode_chunk(0, 0, chunk).message,  # last: who sends what is not finite is left alone from then on
    ]
    ids = itertools.count(100)
    async with stranger(status.self_member.address) as peer:
        for message in wrong:
            answers = await _bad_exchange(peer, status.self_member.id, ids, message)
            assert not any(isinstance(answer, Chunk) for answer in answers), message
    metrics = await page(status.http_address, "/metrics")
    assert _metric(metrics, 'adpsgd_exchanges_total{outcome="broken",role="responder"}') >= len(wrong)
    await first.wait_for(lambda s: s.unsettled == 0, "no unsettled exchange")
    await _unharmed(first, second)


async def _bad_exchange(peer: Stranger, node: NodeId, ids: Iterator[int], message: bytes) -> list[Frame]:
    """Open an exchange, until it is accepted, and then send `message`; returns the answers."""
    for exchange_id in itertools.islice(ids, ATTEMPTS):
        opening = encode_frame(_open(node, exchange_id))
        _, raw = await peer.converse(StreamMethod.CONVERSE, [opening, message])
        answers = [decode_frame(answer) for answer in raw]
        if answers and isinstance(answers[0], Accept):
            return answers
    raise AssertionError(f"{node} accepts no exchange; last {answers}")


async def _unharmed(first: NodeProcess, second: NodeProcess) -> None:
    """Both nodes go on together, and neither has anything to complain about but the stranger."""
    status = await first.status()
    assert await page(status.http_address, "/healthz") == "ok\n"
    for node in (first, second):
        before = await node.status()
        await node.wait_for(
            lambda s, before=before: s.step > before.step and s.exchanges_initiated > before.exchanges_initiated + 3,
            "steps and exchanges",
        )
        assert not (await node.status()).problem
        assert "Traceback" not in node.text(), node.text()
        assert len(node.text().splitlines()) < 60, "a stranger can flood the log"


def _calls(node: NodeId) -> dict[Method, bytes]:
    """Give one valid request of each kind."""
    source = Member(WHO, NOWHERE, 0, MemberState.ALIVE, Phase.IDLE)
    packet = Packet(protocol=PROTOCOL_VERSION, run_id=RUN, source=source, updates=(), progress=(), body=None)
    join = JoinRequest(protocol=PROTOCOL_VERSION, run_id=RUN, source=source, progress=())
    settle = Settle(run_id=RUN, initiator=WHO, responder=node, exchange_id=1, applied_through=0)
    offer = OfferRequest(protocol=PROTOCOL_VERSION, run_id=RUN, schema=LAYOUT.schema, source=WHO, algorithm="ad-psgd")
    return {
        Method.DELIVER: encode_packet(packet),
        Method.JOIN: encode_join_request(join),
        Method.SETTLE: encode_settle(settle),
        Method.OFFER: encode_offer_request(offer),
    }


def _open(node: NodeId, exchange_id: int) -> Open:
    return Open(
        protocol=PROTOCOL_VERSION,
        run_id=RUN,
        schema=LAYOUT.schema,
        initiator=WHO,
        responder=node,
        exchange_id=exchange_id,
        codec=CodecName.FP32,
        chunk_bytes=CHUNK_BYTES,
        chunk_count=len(LAYOUT.chunks),
        step=0,
    )


def _rejected(metrics: str, reason: str) -> float:
    return _metric(metrics, f'adpsgd_rejected_packets_total{{reason="{reason}"}}')


def _metric(metrics: str, name: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.rpartition(" ")[0] == name)
