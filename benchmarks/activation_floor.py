"""Compare the training kernels of a SpinNeuron with the limit of this processor.

    python benchmarks/activation_floor.py

The script counts operations and bytes per element in the code that XLA makes of the kernels. It
measures the time of one operation and of one byte on the same machine, and compares the sum with
the time of the kernels. All times are processor times on one thread, medians of interleaved
repeats. A multiplication and an addition together count as one operation, because processors fuse
them; a minimum, a comparison or a selection count as one each. The time of an operation is the
difference between long and short chains of it, with 8 independent chains at a time; the time of a
byte is that of a copy. Bytes that pass through memory between two loops of a kernel count, too.
`least bytes` is the number that every kernel must read and write.
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
from spinkeras.energy import meter, pulse
from spinkeras.layer import core

SHAPE = (4096, 512)  # a row fits into the fastest cache
ELEMENTS = math.prod(SHAPE)
SINGLE = ("shift-left", "shift-right-arithmetic", "convert")  # cost as much as an addition
# XLA's names for the operations of the processor; multiplications are counted separately.
KINDS = {
    "multiply-add": ("add", "subtract", "negate", *SINGLE),
    "divide": ("divide",),
    "exponential": ("exponential",),  # a logistic function is an exponential and a division
    "select": ("select", "compare", "maximum", "minimum", "clamp", "clamp"),  # a clamp counts twice
}
# Links of chains that XLA cannot shorten, and the number of multiply-adds in each.
LINKS = {
    "multiply-add": (lambda v: v * 0.99 + 0.01, 0),
    "divide": (lambda v: 1.5 / (v + 1.0), 1),
    "exponential": (lambda v: ops.exp(v * -0.3), 1),
    "select": (lambda v: ops.maximum(v * 0.99, 0.5), 1),
}
UNPRICED = (
    "log",
    "log-plus-one",
    "logistic",
    "exponential-minus-one",
    "round-nearest-even",
    "tanh",
    "power",
    "sqrt",
)
LEAST_BYTES = {"forward": 8, "backward": 16, "meter": 8}  # float32 in and out, without the weights


def count(text):
    """`({kind: operations per element}, bytes per element)` of XLA's optimised code."""
    instruction = re.compile(r"%?([\w.-]+) = \w+\[([\d,]*)\]\S* ([\w-]+)\((.*)")
    counts = dict.fromkeys(("multiply", *KINDS), 0.0)
    sizes, moved, entry = {}, 0.0, False
    for line in text.splitlines():
        if line.rstrip().endswith("{"):
            entry = line.startswith("ENTRY")
        found = instruction.search(line)
        if not found:
            continue
        name, shape, operation, rest = found.groups()
        sizes[name] = math.prod(int(n) for n in shape.split(",") if n) / ELEMENTS
        operands = [sizes.get(o, 0.0) for o in re.findall(r"%([\w.-]+)", rest.split(")")[0])]
        if entry:
            if operation not in ("parameter", "constant", "tuple", "bitcast"):
                moved += 4 * (sizes[name] + sum(operands))
        elif operation in ("reduce", "reduce-window"):
            counts["multiply-add"] += operands[0]
        else:
            for kind in counts:
                counts[kind] += sizes[name] * KINDS.get(kind, (kind,)).count(operation)
            if operation in UNPRICED and sizes[name] >= 1:
                raise SystemExit(f"The kernel has an operation without a price: {operation}.")
    counts["multiply-add"] = max(counts.pop("multiply"), counts["multiply-add"])
    return counts, moved


def chains(link, length):
    def function(v):
        parts = [v + float(k) for k in range(8)]
        for _ in range(length):
            parts = [link(part) for part in parts]
        return sum(parts[1:], parts[0])

    return function


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    x, upstream = (tf.constant(rng.normal(size=SHAPE).astype("float32")) for _ in range(2))

    functions = {"copy": lambda v: v + 1.0, "sigmoid": ops.sigmoid}
    functions["its gradient"] = lambda v: upstream * v * (1.0 - v)
    for length in (2, 6):
        functions |= {(kind, length): chains(link, length) for kind, (link, _) in LINKS.items()}
    functions = {name: (core.compiled(f), (x,)) for name, f in functions.items()}
    # Numbers of the neurons; their values do not affect the time.
    numbers, by_input, *by_knobs = (
        tf.constant(rng.uniform(0.5, 2, (count, SHAPE[1])).astype("float32"))
        for count in (6, 4, 6, 6)
    )
    output = core.response(x, numbers)
    fixed = upstream, x, output, numbers, by_input
    settings = tf.constant(np.full((2, SHAPE[1]), [[70e-6], [2e-9]], "float32"))
    device = spinkeras.MTJDevice.preset("stt_reference")
    device = tf.constant([10e-6, *pulse.write_numbers(device, 0.75)])
    kernels = {
        "forward": (lambda x, numbers: core.response(x, numbers), (x, numbers)),
        "backward, knobs fixed": (core._gradients_of_rows, fixed),
        "backward, one knob trained": (core._gradients_of_rows, (*fixed, by_knobs[0])),
        "backward, both knobs trained": (core._gradients_of_rows, (*fixed, *by_knobs)),
        "meter": (meter._write_sums_of_rows, (x, output, settings, device)),
    }
    kernels = {name: (core.compiled(f), inputs) for name, (f, inputs) in kernels.items()}
    functions |= kernels

    seconds = {name: [] for name in functions}
    for repeat in range(args.repeats + 3):
        for name, (function, inputs) in functions.items():
            start = time.process_time()
            function(*inputs)
            if repeat >= 3:
                seconds[name].append(time.process_time() - start)
    took = {name: np.median(values) / ELEMENTS * 1e9 for name, values in seconds.items()}  # ns
    price = {kind: (took[kind, 6] - took[kind, 2]) / 32 for kind in KINDS}
    for kind, (_, inside) in LINKS.items():
        price[kind] -= inside * price["multiply-add"]

    print(f"keras {keras.__version__}, tensorflow {tf.__version__}, {SHAPE} float32, one thread")
    names = ("copy", "sigmoid", "its gradient")
    print("ns per element: " + ", ".join(f"{name} {took[name]:.2f}" for name in names))
    print("ns per operation: " + ", ".join(f"{k} {v:.4f}" for k, v in price.items()))
    for name, (function, inputs) in kernels.items():
        text = function.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")
        counts, moved = count(text)
        least = LEAST_BYTES[name.split(",")[0]]
        arithmetic = sum(number * price[kind] for kind, number in counts.items())
        memory = moved / 8 * took["copy"]
        floor = max(arithmetic, least / 8 * took["copy"])
        own = max(arithmetic, memory)
        print(f"\n{name}: {took[name]:.2f} ns, {took[name] / took['sigmoid']:.2f} sigmoids")
        print("  " + ", ".join(f"{v:.1f} {k}" for k, v in counts.items()))
        print(f"  {moved:.1f} bytes (least bytes {least})")
        print(f"  arithmetic {arithmetic:.2f} ns, its bytes {memory:.2f} ns")
        print(f"  took {took[name] / own:.2f} times the larger of the two")
        print(
            f"  floor with the least bytes {floor:.2f} ns, {floor / took['sigmoid']:.2f} sigmoids"
        )


if __name__ == "__main__":
    main()
