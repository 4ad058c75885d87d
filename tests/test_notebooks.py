"""The notebooks: clean as they are in the repository, true to the library, and they run."""

import ast
import importlib
import json
import os

import pytest

from tests.processes import ROOT, environment

FOLDER = ROOT / "docs" / "notebooks"
NAMES = ("first_neuron", "your_device", "energy_budget", "chips_and_serving")


def notebook(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code(name):
    """The code of all cells together."""
    cells = notebook(name)["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def public_names(tree):
    """Every `spinkeras.a.b` and `from spinkeras import a` of some code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spinkeras":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            parts = [node.attr]
            while isinstance(node := node.value, ast.Attribute):
                parts.append(node.attr)
            if isinstance(node, ast.Name) and node.id == "spinkeras":
                yield ".".join(["spinkeras", *reversed(parts)])


def test_there_are_four():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_clean(name):
    found = notebook(name)
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert set(found["metadata"]) == {"kernelspec", "language_info"}  # nothing of a machine
    cells = found["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    for cell in cells:
        assert "".join(cell["source"]).strip()
        assert set(cell["metadata"]) <= {"tags"}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_in_a_notebook_exists(name):
    names = {*public_names(ast.parse(code(name)))}
    assert len(names) > 5
    for each in names:
        module, *parts = each.split(".")
        thing = importlib.import_module(module)
        for part in parts:
            assert not part.startswith("_"), each
            assert hasattr(thing, part), each
            thing = getattr(thing, part)


@pytest.mark.parametrize("name", NAMES)
def test_links_in_a_notebook_lead_to_files(name):
    for cell in notebook(name)["cells"]:
        text = "".join(cell["source"])
        for part in text.split("](")[1:]:
            assert (FOLDER / part.split(")")[0]).is_file(), part


@pytest.mark.docs
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    """In the fast mode, in a process of its own; it leaves nothing behind in its folder."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    before = sorted(os.listdir(FOLDER))
    found = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    client = nbclient.NotebookClient(
        found, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute(env=environment(SPINKERAS_FAST="1", TMPDIR=str(tmp_path)))
    outputs = [output for cell in found.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert sorted(os.listdir(FOLDER)) == before
    for cell in found.cells:  # no picture and no card is shown twice
        for kind in ("image/png", "text/html"):
            assert sum(kind in o.get("data", {}) for o in cell.get("outputs", [])) <= 1
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert "nan" not in printed.lower().split()
    shown = "".join(str(o.get("data", {}).get("text/plain", "")) for o in outputs)
    assert "[<" not in shown  # the value of a call that only draws
