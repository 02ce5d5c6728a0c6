"""Links to papers, from the table of papers.md."""

import re
from pathlib import Path

_TABLE = (Path(__file__).parent / "papers.md").read_text(encoding="utf-8")
LINKS = {
    title.lower(): address for title, address in re.findall(r"\[([^\]]+)\]\((http[^)]+)\)", _TABLE)
}


def linked(text: str) -> str:
    """Make the quoted titles of papers in reStructuredText links, over ends of lines too."""
    return re.sub(r'"([^"`<>]{15,200})"', _link, text)


def _link(match: re.Match[str]) -> str:
    title = " ".join(match[1].split())
    address = LINKS.get(title.lower().rstrip(","))
    return match[0] if address is None else f"`{title} <{address}>`__"
