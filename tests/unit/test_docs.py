"""Every relative link of the documents leads to something that exists, and every heading it names too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
NOT_OURS = {".venv", ".git", "build", "node_modules", ".pytest_cache"}


def documents() -> list[Path]:
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(path for path in found if not NOT_OURS.intersection(path.parts))


def links(text: str) -> Iterator[str]:
    """List the links of a document that stay in this repository."""
    for target in LINK.findall(FENCED.sub("", text)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(text: str) -> set[str]:
    """Name a document's headings as links do: lower case, punctuation dropped, spaces as dashes."""
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(FENCED.sub("", text)))
    return {title.replace(" ", "-") for title in titles}


def broken(document: Path, text: str) -> list[str]:
    """List the links of a document that lead nowhere."""
    failing = []
    for target in links(text):
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path.read_text())):
            failing.append(target)
    return failing


@pytest.mark.parametrize("document", documents(), ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    assert broken(document, (ROOT / document).read_text()) == []


def test_a_broken_link_would_be_noticed() -> None:
    text = "[a](README.md) [b](nix.md) [c](README.md#no-such-heading) [d](https://example.org)\n```\n[e](nix)\n```\n"
    assert broken(Path("README.md"), text) == ["nix.md", "README.md#no-such-heading"]


def test_the_file_tree_names_every_module() -> None:
    tree = (ROOT / "docs/architecture.md").read_text()
    folders = (ROOT / "adpsgd_node", ROOT / "cli")
    modules = [path for folder in folders for path in folder.rglob("*.py") if "v1" not in path.parts]
    missing = [str(path.relative_to(ROOT)) for path in modules if path.name != "__init__.py" and path.name not in tree]
    assert missing == []
