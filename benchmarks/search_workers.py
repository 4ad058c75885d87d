"""Measure how the time of a search falls with the number of workers.

The script runs the same search (same trials, same seed, one thread per worker) with 1, 2, ...
workers and a chief over the loopback interface. It prints the time from the first trial's start to
the last trial's end. The workers wait for each other before the first trial, so the time does not
include the start of Python and TensorFlow. A worker computes all the time, so on one machine more
workers than idle cores do not help.

    python benchmarks/search_workers.py --workers 1 2 --trials 12

With `--wait S` a trial builds its model and then sleeps for S seconds instead of training. This
needs no core, so it shows the cost of keras-tuner's chief and of the files alone:

    python benchmarks/search_workers.py --workers 1 2 4 --trials 12 --wait 5
"""

import argparse
import functools
import os
import pathlib
import platform
import socket
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from examples.long_work import LongWork


def work(folder, workers, trials, epochs, wait):
    """Run a worker or the chief, as keras-tuner's environment variables say."""
    import keras_tuner as kt
    import numpy as np

    from spinkeras.search.durability import durable
    from spinkeras.search.hypermodel import SpinHyperModel, dense_classifier

    class Timed(durable(kt.RandomSearch)):
        def note(self):
            with open(f"{folder}/times.txt", "a") as file:
                file.write(f"{time.time()}\n")

        def on_search_begin(self):
            super().on_search_begin()
            pathlib.Path(folder, f"ready_{os.getpid()}").touch()
            end = time.monotonic() + 600
            while len(list(pathlib.Path(folder).glob("ready_*"))) < workers:
                if time.monotonic() > end:
                    raise SystemExit("the other workers did not start")
                time.sleep(0.05)

        def on_trial_begin(self, trial):
            self.note()
            super().on_trial_begin(trial)

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            self.note()

    class Waiting(SpinHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            time.sleep(wait)
            return {self.objective.name: 0.0}

    # The network is fixed, because the cost of a trial must not depend on its settings.
    network = dense_classifier((64,), 10, hidden=32)
    kind = Waiting if wait else SpinHyperModel
    hypermodel = kind(network, device="stt_reference", train="both", sharing="channel")
    tuner = Timed(
        hypermodel,
        objective=hypermodel.objective.objective,
        max_trials=trials,
        seed=1,
        directory=folder,
        project_name="search",
    )
    x = np.random.default_rng(0).normal(size=(1024, 64)).astype("float32")
    y = np.argmax(x[:, :10], axis=1)
    tuner.search(x, y, validation_data=(x, y), epochs=epochs, batch_size=32, verbose=0)


def measure(workers, trials, epochs, wait):
    """Seconds from the first trial's start to the last trial's end."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        processes = []
        for name in ["chief", *(f"tuner{k}" for k in range(workers))]:
            environment = dict(
                os.environ,
                KERASTUNER_TUNER_ID=name,
                KERASTUNER_ORACLE_IP="127.0.0.1",
                KERASTUNER_ORACLE_PORT=port,
                TF_NUM_INTRAOP_THREADS="1",
                TF_NUM_INTEROP_THREADS="1",
                OMP_NUM_THREADS="1",
                TF_CPP_MIN_LOG_LEVEL="3",
            )
            command = [sys.executable, __file__, "--child", folder, "--workers", str(workers)]
            command += ["--trials", str(trials), "--epochs", str(epochs), "--wait", str(wait)]
            processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        try:
            for process in processes[1:]:
                _, errors = process.communicate(timeout=3600)
                if process.returncode:
                    raise SystemExit(errors[-2000:])
        finally:
            for process in processes:
                process.kill()
                process.wait()
        times = [float(t) for t in pathlib.Path(folder, "times.txt").read_text().split()]
        assert len(times) == 2 * trials
        return max(times) - min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--wait", type=float, default=0.0, help="s of sleep in place of training")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        work(args.child, args.workers[0], args.trials, args.epochs, args.wait)
        return
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load before the start {load:.1f}")
    if load > 0.5 and not args.wait:
        print("The machine is busy: the figures below are a lower limit of the gain.")
    what = f"{args.wait:g} s of sleep" if args.wait else f"{args.epochs} epochs"
    print(f"{args.trials} trials of {what}")
    pieces = {
        f"{n} workers": functools.partial(measure, n, args.trials, args.epochs, args.wait)
        for n in args.workers
    }
    results = LongWork("results/search_workers.part.json", vars(args), keep=False)(pieces)
    took = dict(zip(args.workers, results.values()))
    first = took[args.workers[0]]
    print("workers  seconds  times faster")
    for workers, seconds in took.items():
        print(f"{workers:7d}  {seconds:7.1f}  {first / seconds:12.2f}")


if __name__ == "__main__":
    main()
