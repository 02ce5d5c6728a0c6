"""Give README.md absolute links, and pyproject.toml its addresses, for a release.

``python docs/absolute_links.py ADDRESS TAG`` is run by the workflow that releases, in a checkout
that is thrown away: the address is that of the repository it runs in, so none is written down here.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def absolute(text: str, address: str, tag: str) -> str:
    """Markdown with its links to files of the repository made absolute: images raw, others shown.

    Args:
        text: The text.
        address: The address of the repository.
        tag: The tag or branch to link to.

    Example:
        >>> absolute("![a](b.png) [c](d.md) [e](https://f)", "https://host/repository", "v1")
        '![a](https://host/repository/raw/v1/b.png) [c](https://host/repository/blob/v1/d.md) \
[e](https://f)'
    """
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{address}/raw/{tag}/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{address}/blob/{tag}/", text)


def urls(address: str, tag: str) -> str:
    """The table of addresses of pyproject.toml."""
    pages = {
        "Source": address,
        "Documentation": f"{address}/blob/{tag}/docs/recipes.md",
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
    return "[project.urls]\n" + "".join(f'{name} = "{page}"\n' for name, page in pages.items())


def main(root: Path, address: str, tag: str) -> None:
    """Rewrite both files, once."""
    readme, project = root / "README.md", root / "pyproject.toml"
    readme.write_text(absolute(readme.read_text(), address, tag))
    settings = project.read_text()
    if "[project.urls]" not in settings:
        before = "[project.scripts]"
        project.write_text(settings.replace(before, f"{urls(address, tag)}\n{before}"))


if __name__ == "__main__":
    main(ROOT, *sys.argv[1:])
