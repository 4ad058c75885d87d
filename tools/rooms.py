"""Print which rooms (folders) of the library import which, read from the source.

python -m tools.rooms            # a table
python -m tools.rooms --dot      # a graph for Graphviz
"""

import argparse
import ast
import pathlib

LIBRARY = pathlib.Path(__file__).resolve().parents[1] / "spinkeras"


def rooms() -> dict[str, dict[str, int]]:
    """Number of imports that every room, or module at the top, makes from every other."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        own = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        arrows = found.setdefault(own, {})
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spin")):
                continue
            inside = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            for other in inside:
                if other != own:
                    arrows[other] = arrows.get(other, 0) + 1
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dot", action="store_true", help="a graph for Graphviz")
    args = parser.parse_args()
    found = rooms()
    if args.dot:
        arrows = [f'  "{a}" -> "{b}";' for a, others in found.items() for b in others]
        print("digraph {", *arrows, "}", sep="\n")
        return
    for own, others in found.items():
        lines = sum(
            len(path.read_text().splitlines())
            for path in LIBRARY.rglob("*.py")
            if path.relative_to(LIBRARY).parts[0].removesuffix(".py") == own
        )
        listed = ", ".join(f"{name} {count}" for name, count in sorted(others.items()))
        print(f"{own:12} {lines:5} lines   {listed or '-'}")


if __name__ == "__main__":
    main()
