"""Read a page of a node's HTTP server."""

from __future__ import annotations

import aiohttp

LIMIT_S = 10.0


async def page(address: str, path: str) -> str:
    """Return the text of a page that is answered with 200."""
    status, text = await answer(address, path)
    assert status == 200, f"{path} of {address}: {status} {text}"
    return text


async def answer(address: str, path: str) -> tuple[int, str]:
    """Return status and text of a page."""
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"http://{address}{path}") as response:
        return response.status, await response.text()
