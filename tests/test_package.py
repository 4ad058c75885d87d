"""The package as a user meets it: light import, docstring examples, README, the other backends."""

import ast
import configparser
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import spinkeras
from tests.processes import ROOT, environment

MODULES = [
    module.name
    for module in pkgutil.walk_packages(spinkeras.__path__, "spinkeras.")
    if not module.name.endswith("__main__")
]


def run(code, **variables):
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env=environment(**variables),
    ).stdout


def test_import_is_light():
    """Nothing heavy beyond what `import keras` itself loads, nor with the modules for fits."""
    heavy = ["keras_tuner", "tensorflow_probability", "tf_keras", "matplotlib", "pandas"]
    heavy += ["sklearn", "onnx", "kserve", "spinkeras.plot", "spinkeras.cards", "spinkeras.pages"]
    code = (
        "import sys, keras; before = set(sys.modules); "
        "import spinkeras.calibration, spinkeras.macrospin.llg; "
        f"print([m for m in {heavy} if m in set(sys.modules) - before])"
    )
    assert run(code).strip().endswith("[]")


@pytest.mark.slow
def test_the_package_imports_neither_servers_nor_converters():
    script = (
        "import json, sys, keras, keras_tuner\n"
        "before = set(sys.modules)\n"
        "import spinkeras, spinkeras.export\n"
        "print(json.dumps(sorted(m for m in set(sys.modules) - before if '.' not in m)))"
    )
    new = set(json.loads(run(script).splitlines()[-1]))
    assert "spinkeras" in new
    assert not new & {"tf2onnx", "onnx", "onnxruntime", "kserve", "ai_edge_litert", "fastapi"}


def test_every_module_has_a_test_file_of_its_name_in_the_same_room():
    """A newcomer finds the tests of `a/b.py`, and of `a/_b.py`, in `tests/a/test_b.py`."""
    folder = ROOT / "spinkeras"
    modules = [path.relative_to(folder) for path in folder.rglob("*.py")]
    modules = [
        path for path in modules if path.stem.strip("_") not in ("init", "typing", "version")
    ]
    assert len(modules) > 50
    own = [path.with_name(f"test_{path.stem.strip('_')}.py") for path in modules]
    assert len(set(own)) == len(own)
    assert not [str(path) for path in own if not (ROOT / "tests" / path).is_file()]


def test_every_public_name_is_on_the_map_and_documented():
    for name in spinkeras.__all__:
        thing = getattr(spinkeras, name)
        assert thing is not None
        if callable(thing):
            assert thing.__doc__, name
            assert len(thing.__doc__.splitlines()) > 1 or name == "presets"


def public_functions():
    """Every function and method that a user meets, by name."""
    rooms = [getattr(spinkeras, name) for name in spinkeras.__all__]
    things = {name: getattr(spinkeras, name) for name in spinkeras.__all__}
    for room in [*rooms, spinkeras.search]:
        things |= {name: getattr(room, name) for name in getattr(room, "__all__", ())}
    for name, thing in things.items():
        if inspect.ismodule(thing):
            yield from (
                (f"{name}.{key}", value)
                for key, value in vars(thing).items()
                if inspect.isfunction(value)
                and key[0] != "_"
                and value.__module__ == thing.__name__
            )
        elif inspect.isclass(thing):
            for key, value in vars(thing).items():
                value = value.fget if isinstance(value, property) else value
                value = getattr(value, "__func__", value)
                if inspect.isfunction(value) and (key[0] != "_" or key == "__init__"):
                    yield f"{name}.{key}", value
        elif inspect.isfunction(thing):
            yield name, thing


def test_everything_public_is_annotated():
    found = 0
    for name, function in public_functions():
        signature = inspect.signature(function)
        given = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        bare = [p.name for p in given if p.annotation is p.empty]
        assert not bare, f"{name}: {bare}"
        assert signature.return_annotation is not signature.empty, name
        found += 1
    assert found > 100


def test_imports_point_one_way_in_the_order_of_the_map():
    order, room = [], ""
    for indent, names in re.findall(r"^    (  )?(\w+(?:, \w+)*)  ", spinkeras.__doc__, re.M):
        if not indent:
            room = names
        order += [f"{room}.{name}" if indent else name for name in names.split(", ")]
    folder = ROOT / "spinkeras"
    paths = {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in folder.rglob("*.py")
        if path.name not in ("__init__.py", "_version.py")
    }
    rooms = {name.split(".")[0] for name in paths if "." in name}
    assert set(order) - rooms == set(paths) - {"macrospin.fokker_planck", "macrospin.llg"}
    for own, path in paths.items():
        place = order.index(own if own in order else own.split(".")[0])
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spinkeras"):
                module = node.module.removeprefix("spinkeras").lstrip(".")
                inner = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
                for name in {module, *inner} & {*order} - {own, own.split(".")[0]}:
                    assert order.index(name) < place, f"{own} imports {name}"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    np.set_printoptions(legacy=False)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, optionflags=flags)
    if name == "spinkeras.plot":
        sys.modules["matplotlib.pyplot"].close("all")
    assert result.failed == 0


def test_every_requirement_has_a_lower_bound():
    """So that the oldest set allowed, which tools/oldest.sh installs, is one set."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line for group in groups for line in group.split("\n") if line and line[0] != "#"]
    bounds = [re.fullmatch(r"([\w-]+)(\[\w+\])? >= ([\d.]+)(, < [\d.]+)?", line) for line in lines]
    assert all(bounds), lines
    assert len({(m[1], m[3]) for m in bounds}) == len({m[1] for m in bounds})  # the same everywhere


TRAINS_AND_MEASURES = """
import keras, numpy as np, spinkeras
rng = np.random.default_rng(0)
x = rng.normal(size=(128, 4)).astype("float32")
teacher = spinkeras.SpinNeuron()
teacher.build((None, 4))
teacher.pulse_width = [2.5e-9, 5e-9, 9e-9, 15e-9]
y = keras.ops.convert_to_numpy(teacher(3 * x))
model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(train="pulse_width")])
model.compile(keras.optimizers.Adam(0.05), "mse")
history = model.fit(3 * x, y, epochs=60, verbose=0, validation_data=(3 * x, y),
                    callbacks=[spinkeras.EnergyTracker()]).history
np.testing.assert_allclose(model.layers[0].pulse_width, teacher.pulse_width, rtol=0.1)
report = spinkeras.energy_report(model, 3 * x, print_fn=None)
np.testing.assert_allclose(history["val_energy_pj"][-1], report.total_pj, rtol=1e-5)
"""


def others(test):
    """A test of every backend but TensorFlow, as far as installed."""
    installed = [name for name in ("torch", "jax") if find_spec(name)]
    return pytest.mark.parametrize("backend", installed)(test)


@pytest.mark.slow  # a few fast tests of each backend have a command of their own
@others
def test_a_backend_trains_and_measures(backend):
    run(TRAINS_AND_MEASURES, KERAS_BACKEND=backend)


@pytest.mark.slow
@others
def test_the_longer_tests_of_a_backend(backend):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    subprocess.run(
        [*command, "-m", "backends and slow"],
        check=True,
        cwd=ROOT,
        env=environment(KERAS_BACKEND=backend),
    )


def test_the_description_for_a_package_index_has_no_link_into_the_repository():
    pytest.importorskip("setuptools")
    run = [sys.executable, "setup.py", "--quiet", "--long-description"]
    shown = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:)", readme)
    assert len(links) > 20
    assert not re.findall(r"\]\((?!https?:)", shown)
    # Nothing else differs: words, tables and code.
    words = re.sub(r"!\[.*\]\(.*\)", "", readme)
    words = re.sub(r"\]\([\w/.#-]+\)", "", words)
    assert re.sub(r"[\s\[\]]", "", shown) == re.sub(r"[\s\[\]]", "", words)
