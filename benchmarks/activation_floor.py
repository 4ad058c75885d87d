"""How close the kernels of a SpinNeuron come to what this processor can do.

    python benchmarks/activation_floor.py

Counts, in the code that XLA made of the training kernels, the operations and the bytes per
element, measures on the same machine what one of each costs, and compares the sum with the time
the kernel takes: processor time on one thread, medians of interleaved repeats. A multiply and an
add count as one operation, because processors fuse them; bytes that pass from one loop of the
kernel to the next count too. `sigmoid` is there for the ratio that the targets are stated in.
"""

import argparse
import math
import os
import re
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import spinkeras
from spinkeras import fusion, neuron

SHAPE = (512, 4096)
ELEMENTS = math.prod(SHAPE)
# Operations of the processor by the names that XLA has for them.
KINDS = {
    "multiply-add": ("multiply", "add", "subtract", "negate"),
    "division": ("divide",),
    "exponential": ("exponential", "exponential-minus-one", "logistic", "tanh"),
    "logarithm": ("log", "log-plus-one"),
    "select": ("select", "compare", "maximum", "minimum", "clamp"),
    "round or convert": ("round-nearest-even", "floor", "convert", "shift-left", "abs"),
}


def count(text):
    """`({kind: operations per element}, bytes per element)` in XLA's optimised code."""
    full = re.compile(r"%?([\w.-]+) = (\w+)\[([\d,]*)\][^ ]* ([\w-]+)\((.*)")
    counts, fma, moved = dict.fromkeys(KINDS, 0.0), {"multiply": 0.0, "add": 0.0}, 0.0
    sizes, entry, fused = {}, False, False
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{"):
            entry = line.startswith("ENTRY")
            fused = not entry
        found = full.search(line)
        if not found:
            continue
        name, _, shape, operation, rest = found.groups()
        size = math.prod(int(n) for n in shape.split(",") if n) / ELEMENTS
        sizes[name] = size
        if fused:
            if operation == "multiply":
                fma["multiply"] += size
            elif operation in KINDS["multiply-add"]:
                fma["add"] += size
            else:
                for kind, names in KINDS.items():
                    counts[kind] += size * (operation in names)
            if operation == "reduce":  # one addition per element read
                fma["add"] += sizes.get(rest.split(",")[0].strip("% "), 0.0)
        elif entry and operation not in ("parameter", "tuple", "get-tuple-element", "bitcast"):
            read = re.findall(r"%([\w.-]+)", rest.split("), ")[0])
            moved += 4 * (size + sum(sizes.get(r, 0.0) for r in read))
    counts["multiply-add"] = max(fma.values())
    return counts, moved


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=SHAPE).astype("float32"))
    upstream = tf.constant(rng.normal(size=SHAPE).astype("float32"))

    def chains(v, step, number=8, length=8):
        """Independent chains, so that throughput counts and not latency."""
        parts = [v + float(k) for k in range(number)]
        for _ in range(length):
            parts = [step(part) for part in parts]
        return sum(parts[1:], parts[0])

    probes = {
        "copy": (lambda v: v + 1.0, 0),
        "multiply-add": (lambda v: chains(v, lambda p: p * 0.99 + 0.01), 72),
        "division": (lambda v: chains(v, lambda p: 1.5 / p, 4, 2), 8),
        "exponential": (lambda v: sum(ops.exp(v + float(k)) for k in range(4)), 4),
        "logarithm": (lambda v: sum(ops.log(v * v + float(k + 1)) for k in range(4)), 4),
        "select": (lambda v: chains(v, lambda p: ops.maximum(p, 0.5 - p)), 64),
        "round or convert": (lambda v: chains(v, lambda p: ops.round(p * 1.37)), 64),
        "sigmoid": (ops.sigmoid, 0),
    }
    functions = {name: (fusion.compiled(probe), (x,)) for name, (probe, _) in probes.items()}
    kernels = {}
    for title, train in (("knobs trained", ("pulse_width", "anisotropy")), ("knobs fixed", ())):
        layer = spinkeras.SpinNeuron(train=train)
        layer.build((None, SHAPE[1]))
        weights = [ops.convert_to_tensor(weight) for weight in layer.knob_weights()]
        call = neuron._kernel(type(layer), *(getattr(layer, n) for n in neuron._PHYSICS))
        output = call(x, *weights)
        kernels["forward"] = (call.forward, (x, *weights))
        kernels[f"backward, {title}"] = (call.backward, (upstream, output, x, *weights))
    functions |= kernels

    seconds = {name: [] for name in functions}
    for repeat in range(args.repeats + 3):
        for name, (function, inputs) in functions.items():
            start = time.process_time()
            np.asarray(tf.nest.flatten(function(*inputs))[0][0])
            if repeat >= 3:
                seconds[name].append(time.process_time() - start)
    took = {name: np.median(values) / ELEMENTS * 1e9 for name, values in seconds.items()}  # ns

    copy = took["copy"]
    price = {k: max(took[k] - copy, 0) / probes[k][1] for k in KINDS}
    # The chains of `division` and others hold further additions; their price is small.
    print(f"keras {keras.__version__}, tensorflow {tf.__version__}, {SHAPE} float32, one thread")
    print(f"copy {copy:.3f} ns per element (8 bytes), sigmoid {took['sigmoid']:.3f} ns")
    print("ns per operation: " + ", ".join(f"{k} {v:.4f}" for k, v in price.items()))
    head = f"\n{'kernel':26}" + "".join(f"{k:>18}" for k in (*KINDS, "bytes"))
    print(head + f"{'arithmetic ns':>15}{'bytes ns':>10}{'took ns':>9}{'/ larger':>9}{'/ sum':>7}"
          f"{'/ sigmoid: floor':>18}{'took':>6}")
    for name, (function, inputs) in kernels.items():
        text = function.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")
        counts, moved = count(text)
        arithmetic = sum(number * price[kind] for kind, number in counts.items())
        memory = moved / 8 * copy
        larger = max(arithmetic, memory)
        cells = "".join(f"{counts[kind]:18.1f}" for kind in KINDS) + f"{moved:18.1f}"
        print(
            f"{name:26}{cells}{arithmetic:15.3f}{memory:10.3f}{took[name]:9.3f}"
            f"{took[name] / larger:9.2f}{took[name] / (arithmetic + memory):7.2f}"
            f"{larger / took['sigmoid']:18.2f}{took[name] / took['sigmoid']:6.2f}"
        )


if __name__ == "__main__":
    main()
