"""A SavedModel run by a C program, without Python."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

import spinkeras
from tests.export.harness import samples

HERE = pathlib.Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    """The compiled program, linked against the TensorFlow that is installed."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    library = pathlib.Path(tf.sysconfig.get_lib())
    names = ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"]
    if compiler is None or not all((library / name).exists() for name in names):
        pytest.skip("needs a C compiler and the TensorFlow libraries of the Linux wheel")
    program = tmp_path_factory.mktemp("c") / "run_saved_model"
    source = HERE / "run_saved_model.c"
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1"]
    command += [f"-I{tf.sysconfig.get_include()}", source, "-o", program, f"-L{library}"]
    command += [*(f"-l:{name}" for name in names), f"-Wl,-rpath,{library}"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return program


def tensor_names(path, name):
    """Input and output tensors of a signature: two dictionaries of graph names."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    definition = proto.meta_graphs[0].signature_def[name]
    return tuple(
        {key: info.name for key, info in part.items()}
        for part in (definition.inputs, definition.outputs)
    )


def request_line(path, name, output, x):
    inputs, outputs = tensor_names(path, name)
    numbers = [x.ndim, *x.shape, *(float(v).__repr__() for v in x.ravel())]
    return " ".join(map(str, [inputs["pixels"], outputs[output], *numbers])) + "\n"


@pytest.mark.slow
def test_a_c_program_runs_every_endpoint_without_python(exported, c_program, tmp_path):
    model, base = exported
    path = base / "1"
    x = samples(6, seed=11)
    bad = x.copy()
    bad[3, 2] = np.nan
    requests = [
        request_line(path, "serving_default", "digit", x),
        request_line(path, "energy", "energy_pj", x),
        request_line(path, "sample", "digit", x),
        request_line(path, "sample", "digit", x),
        request_line(path, "serve", "digit", x[:, :15]),
        request_line(path, "serve", "digit", bad),
        request_line(path, "serve", "digit", x[:0]),
        request_line(path, "serve", "digit", x),
    ]
    result = subprocess.run(
        [str(c_program), str(path)],
        input="".join(requests),
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    *answers, python_files = result.stdout.splitlines()
    assert python_files == "python:"  # none in the process

    def values(line):
        kind, rank, *words = line.split()
        assert kind == "ok", line
        shape = tuple(map(int, words[: int(rank)]))
        return np.array(words[int(rank) :], "float64").reshape(shape)

    want = model.predict(x, verbose=0)
    for k in (0, 7):  # also after the bad requests
        np.testing.assert_allclose(values(answers[k]), want, rtol=1e-5, atol=1e-7)
    wanted = spinkeras.energy_report(model, x, print_fn=None).total_pj
    assert values(answers[1]).mean() == pytest.approx(wanted, rel=1e-5)
    assert np.any(values(answers[2]) != values(answers[3]))
    for answer, message in ((answers[4], "[6,15]"), (answers[5], "'pixels' is not finite")):
        assert answer.startswith("error 3")  # INVALID_ARGUMENT
        assert message in answer
    assert values(answers[6]).shape == (0, 10)
