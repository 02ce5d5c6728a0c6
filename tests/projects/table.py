"""Write the table of docs/projects.md from the rows: ``python -m tests.projects.table``."""

import re
from pathlib import Path

from tests.projects import batches, heads, images, positions, sequences, training
from tests.projects.harness import Project

PAGE = Path(__file__).parents[2] / "docs" / "projects.md"
MARKED = re.compile(r"(<!-- projects -->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
PROJECTS = [
    project
    for module in (images, sequences, positions, batches, heads, training)
    for project in module.PROJECTS
]
USUAL = "[NeuralCollapse(), EquiSeparation()]"
TITLES = ("project", "callbacks", "layers", "head", "pooling", "classes", "what is said")


def cells(project: Project) -> list[str]:
    """The row of a project."""
    pools = {pool.words for pool in (*project.layers.values(), project.last_pooling)} - {""}
    heads = [f"`{head}`" for head in dict.fromkeys(project.heads.values())]
    return [
        project.name,
        f"`{project.code}`" if project.code != USUAL else "",
        ", ".join(f"`{layer}`" for layer in project.layers),
        ", ".join(heads) or f"none; features are the input of `{project.last}`",
        ", ".join(sorted(pools)) or "",
        f"{project.classes}, of {project.samples}",
        "; ".join(f"“… {text} …”" for text in project.said) or "",
    ]


def written() -> str:
    """The page with the table as it should be."""
    rows = [TITLES, ["---"] * len(TITLES), *map(cells, PROJECTS)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return MARKED.sub(lambda match: match[1] + table + match[2], PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(written())
