"""What cannot work is said at once: who is at fault, how to mend it, and an exit code of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from support.node_process import Nodes, trainer

CONFIG, BIND, JOIN, TRAINER = 2, 3, 4, 9
"""Exit codes of docs/operations.md."""


async def test_seeds_that_nobody_listens_at_are_named_while_waiting_and_at_the_end(nodes: Nodes) -> None:
    node = nodes.start("n0", "--join-timeout=2", seeds=["127.0.0.1:1", "nobody.invalid:7400"])
    await node.says("no seed lets this node in (127.0.0.1:1: Connection refused")
    status = await node.status()
    assert "looking for the run" in status.problem
    assert await node.ended() == JOIN
    last = node.last_error()
    assert "127.0.0.1:1, nobody.invalid:7400" in last
    assert "--join-timeout" in last
    assert node.text().count("--join-timeout 2 s ends it") == 1, "said once, not at every attempt"
    assert "Traceback" not in node.text()


async def test_seeds_that_are_no_nodes_are_given_up(nodes: Nodes) -> None:
    greetings = [b"", bytes(range(256)), b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    async with contextlib.AsyncExitStack() as stack:
        seeds = [await stack.enter_async_context(_listener(greeting)) for greeting in greetings]
        group = [nodes.start(f"n{number}", "--join-timeout=3", seeds=[seed]) for number, seed in enumerate(seeds)]
        for node, seed in zip(group, seeds, strict=True):
            assert await node.ended() == JOIN
            assert f"no seed lets this node in ({seed}: " in node.text()
            assert seed in node.last_error()


async def test_a_busy_grpc_port_is_named(nodes: Nodes) -> None:
    async with _listener(b"") as address:
        node = nodes.start("n0", f"--listen={address}", "--http=127.0.0.1:0")
        assert await node.ended() == BIND
    assert address in node.last_error()
    assert "--listen" in node.last_error()
    assert len(node.text().splitlines()) == 1, node.text()


async def test_a_busy_http_port_is_named(nodes: Nodes) -> None:
    async with _listener(b"") as address:
        node = nodes.start("n0", f"--http={address}")
        assert await node.ended() == BIND
    assert address in node.last_error()
    assert "--http" in node.last_error()


async def test_a_missing_script_is_named(nodes: Nodes) -> None:
    node = nodes.start("n0", script=["no/such.py"])
    assert await node.ended() == CONFIG
    assert "no/such.py does not exist" in node.last_error()


async def test_a_script_that_never_joins_is_told_to(nodes: Nodes) -> None:
    node = nodes.start("n0", script=trainer("--never-join"))
    assert await node.ended() == TRAINER
    assert "adpsgd_node.join(model, optimizer)" in node.last_error()


async def test_a_script_that_fails_is_restarted_and_its_exit_code_passed_on(nodes: Nodes) -> None:
    script = nodes.folder / "fails.py"
    script.write_text("import sys\nprint('trying')\nsys.exit(41)\n")
    node = nodes.start("n0", "--max-restarts=1", script=[str(script)])
    assert await node.ended() == 41
    assert node.text().count("[n0] trying") == 2
    assert "status 41" in node.last_error()
    assert "--max-restarts" in node.last_error()


async def test_a_script_that_raises_shows_its_traceback_and_goes_on_from_the_plane(nodes: Nodes) -> None:
    node = nodes.start("n0", "--max-restarts=1", script=trainer("--raise-at=3"))
    assert await node.ended() == 1
    assert node.text().count("RuntimeError: told to raise at step 3") == 2
    assert [entry["resumed"] for entry in node.events("joined")] == [False, True]


async def test_an_unknown_key_is_refused_with_the_nearest_known_one(nodes: Nodes) -> None:
    settings = nodes.folder / "node.toml"
    settings.write_text('[network]\nmembrship = "local"\n')
    node = nodes.start("n0", f"--config={settings}")
    assert await node.ended() == CONFIG
    assert f"unknown setting network.membrship in {settings}: did you mean network.membership?" in node.last_error()
    other = nodes.start("n1", environment={"ADPSGD_EPOCS": "3"})
    assert await other.ended() == CONFIG
    assert "did you mean ADPSGD_EPOCHS?" in other.last_error()


async def test_an_output_folder_that_cannot_be_made_is_refused_before_training(nodes: Nodes) -> None:
    (nodes.folder / "file").write_text("in the way")
    node = nodes.start("n0", f"--output={nodes.folder / 'file' / 'out'}")
    assert await node.ended() == CONFIG
    assert str(nodes.folder / "file" / "out") in node.last_error()
    assert "--output" in node.last_error()
    assert not node.events("joined")


async def test_a_model_that_cannot_be_written_is_not_lost_while_restarts_last(nodes: Nodes) -> None:
    """The parameters stay in the plane, so a later life of the script can write them."""
    node = nodes.start("n0", "--epochs=1", "--max-restarts=2")
    await node.training()
    _put_in_the_way(node.model.parent)
    await node.says("cannot write the model to")
    node.model.parent.unlink()
    assert await node.ended() == 0, node.text()
    assert node.model.exists()
    assert [entry["resumed"] for entry in node.events("joined")] == [False, True]
    assert {entry["pid"] for entry in node.events("step")} == {node.events("joined")[0]["pid"]}


def _put_in_the_way(folder: Path) -> None:
    """Make `folder` impossible to write to, even for root."""
    shutil.rmtree(folder)
    folder.write_text("in the way")


@contextlib.asynccontextmanager
async def _listener(greeting: bytes) -> AsyncIterator[str]:
    """Listen on a port, say `greeting` to whoever comes, and nothing else."""
    held: list[asyncio.StreamWriter] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        writer.write(greeting)

    server = await asyncio.start_server(greet, "127.0.0.1", 0, family=socket.AF_INET)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for writer in held:
            writer.close()
        server.close()


async def test_target_in_epochs_is_refused_when_the_script_does_not_say_how_long_one_is(nodes: Nodes) -> None:
    node = nodes.start("n0", "--epochs=1", script=trainer("--dataset-size=0"))
    assert await node.ended() == 2
    assert "dataset_size=len(data)" in node.last_error()
    assert node.text().count("script started") == 1, "starting it again would not mend it"
