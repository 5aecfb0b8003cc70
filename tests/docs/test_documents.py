"""What README and docs/ tell a person to type is understood by the command as it is today."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import boxwright

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Lines that begin with `$ boxwright` inside fenced blocks, continued lines joined."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if re.match(r"\$ (\w+=\S+ )*boxwright ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line.split("|")[0].split(" > ")[0], comments=True)
        words = words[next(place for place, word in enumerate(words) if word == "boxwright") + 1 :]
        if words[0].startswith("-"):
            continue
        implementation = boxwright.resolve(words[0])
        boxwright.parser_for(words[0], implementation).parse_args([word for word in words[1:] if word != "…"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_verb_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    missing = [verb for verb in boxwright.VERBS if f"boxwright {verb}" not in text]
    assert not missing
