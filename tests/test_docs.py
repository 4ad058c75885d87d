"""The README, the pages and their site: links, commands, symbols, and that all their code runs."""

import ast
import configparser
import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest

import spinkeras
from tests.processes import ROOT, environment
from tools import pages

TEXTS = [*pages.PAGES, ROOT / "CONTRIBUTING.md"]
WITH_CODE = [page for page in pages.PAGES if pages.blocks(page)]
LARGEST_PICTURE = 200_000  # bytes, so that a clone stays small

named = pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.docs
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_from_a_clean_start(page, tmp_path):
    """One block after the other; printed text and pictures are what the page shows."""
    command = [sys.executable, "-m", "tools.pages", str(page)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nx = 1\n```\n\nwords\n\n```python\nprint(f'{2 * x} pJ')\n```\n", None),
        ("```python\nprint('1.01 pJ')\n```\n\n```text\n1.03 pJ\n```\n", None),
        ("```python\nprint('1.01 pJ')\n```\n\n```text\n1.13 pJ\n```\n", "line 2.*It prints"),
        ("```python\nprint('1.01 pJ')\n```\n```\n1.01 fJ\n```\n", "line 2.*It prints"),
        ("```python\nx = 1\n```\n\nwords\n\n```python\nx / 0\n```\n", "line 8.*ZeroDivision"),
        ("```python\nx = 1\n```\n\n![](figures/x.png)\n", "line 2.*draws nothing"),
        (f"```python\nopen('{pages.UNSHIPPED[0]}')\n1 / 0\n```\n", None),
        (
            "<!-- own process: A=b -->\n```python\nimport os; assert os.environ['A'] == 'b'\n```\n",
            None,
        ),
        ("<!-- own process: A=b -->\n```python\nraise SystemExit(3)\n```\n", "exit status 3"),
    ],
)
def test_a_page_that_is_wrong_is_told(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "DATA", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"{text}\n")
    if message is None:
        pages.run(page)
    else:
        with pytest.raises(RuntimeError, match=f"(?s)page.md, .*{message}"):
            pages.run(page)


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """What may stand behind a `#`: headings as GitHub and the site name them."""
    heads = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@named
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target
        if other.suffix in (".png", ".svg"):
            assert other.stat().st_size < LARGEST_PICTURE, target


def commands(page):
    """Shell commands: of blocks, of indented lines and between backquotes."""
    text = page.read_text()
    fences = re.findall(r"^```(\w*)\n(.*?)^```\n", text, re.MULTILINE | re.DOTALL)
    fenced = "".join(body for language, body in fences if language in ("", "sh"))
    indented = re.findall(r"^    (\S.*)$", without_code(text), re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", " ".join(without_code(text).split()))
    for line in [*fenced.replace("\\\n", " ").splitlines(), *indented, *inline]:
        for part in re.split(r"&& | \| ", line.split("  #")[0]):
            command = re.sub(r"^([A-Z_]+=\S+ )+", "", part.strip())
            if re.match(r"(pip install|python|pytest|bash|curl) ", command):
                yield command


@named
def test_shell_commands_name_what_exists(page):
    """Files, their options, extras of the package and markers of the tests; JSON that is sent."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    markers = (ROOT / "pyproject.toml").read_text()
    for command in commands(page):
        program, *arguments = shlex.split(command)
        if program == "pip":
            for extras in re.findall(r"\[(.+?)\]", command):
                assert {*extras.split(",")} <= {*config["options.extras_require"]}, command
        if program == "pytest" and "-m" in arguments:
            used = re.findall(r"\w+", arguments[arguments.index("-m") + 1])
            for marker in {*used} - {"and", "not", "or"}:
                assert f'"{marker}: ' in markers, command
        if program == "curl" and "-d" in arguments:
            assert {*json.loads(arguments[arguments.index("-d") + 1])}, command
        if program in ("python", "bash"):
            check_script(arguments, command)


def check_script(arguments, command):
    if arguments[0] == "-m":
        if arguments[1].split(".")[0] != "tools":
            return
        name = arguments[1].replace(".", "/") + ".py"
        options = arguments[2:]
    else:
        name, *options = arguments
    found = [ROOT / name] if "/" in name else [*(ROOT / "examples").rglob(name)]  # in its folder
    assert found, command
    assert found[0].is_file(), command
    text = found[0].read_text()
    for option in options:
        if option == "--":
            break
        if option.startswith("--"):
            assert f'"{option.split("=")[0]}"' in text, command


GREEK = ("alpha", "beta", "gamma", "delta", "eta", "theta", "xi", "rho", "sigma", "tau", "omega")
SYMBOL = re.compile(rf"[A-Za-z]{{1,2}}\d*'?|[A-Za-z]{{1,2}}_\w+|(?i:{'|'.join(GREEK)})\w*'?")
NOT_SYMBOLS = {"d", "ln", "ln2", "or", "of", "on", "to", "at", "by", "in", "kt"}


def symbols_of_the_table():
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "symbols.md").read_text(), re.MULTILINE)
    return [name.split("(")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)]


def formulas(text):
    """Lines with an equals sign that are set apart, without what stands beside them."""
    for line in re.findall(r"^ {4,}(\S.*)$", without_code(text), re.MULTILINE):
        if not line.startswith((">>>", "...")):
            yield from (part for part in re.split(r" {2,}|, ", line) if " = " in part)


def docstrings():
    """Of modules and of what is public in them; the numbers inside of the kernels are their own."""
    for path in sorted((ROOT / "spinkeras").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_"
            if (isinstance(node, ast.Module) or named) and path.name != "core.py":
                yield ast.get_docstring(node) or ""


def test_every_symbol_of_a_formula_has_one_row_in_the_table():
    table = symbols_of_the_table()
    assert len(table) == len({*table})
    texts = [*(page.read_text() for page in pages.PAGES), *docstrings()]
    found = {}
    for formula in (formula for text in texts for formula in formulas(text)):
        for word in re.findall(r"[A-Za-z_]\w*'?", formula):
            name = re.sub(r"^d(?=[A-Zhmtz]$)", "", word).rstrip("'")  # a differential, a chip's
            if SYMBOL.fullmatch(word) and not {word, name} & {*table, *NOT_SYMBOLS}:
                found[word] = formula
    assert not found, f"not in docs/symbols.md, or of another meaning: {found}"


def test_the_reference_has_everything_public():
    shown = {"__version__"}
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for name in re.findall(r"^::: (spinkeras\.\S+)$", page.read_text(), re.MULTILINE):
            module = importlib.import_module(name)
            own = {k for k, v in vars(module).items() if getattr(v, "__module__", None) == name}
            shown |= {name.removeprefix("spinkeras."), *getattr(module, "__all__", own)}
    assert {*spinkeras.__all__} <= shown, {*spinkeras.__all__} - shown


@pytest.mark.parametrize("page", sorted((ROOT / "docs/api").glob("*.md")), ids=lambda p: p.stem)
def test_the_reference_of_a_room_has_all_its_public_names(page):
    """In the order of reading, which is not that of the alphabet, and so written by hand."""
    for module, names in re.findall(
        r"^::: (spinkeras\.\w+)\n    options:\n      members: \[([^]]+)\]", page.read_text(), re.M
    ):
        listed = [name.strip() for name in names.split(",")]
        assert sorted(listed) == sorted(importlib.import_module(module).__all__)
