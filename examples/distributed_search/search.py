"""Search for spin neurons with many processes; every process runs this file.

Started alone, it searches in one process. With keras-tuner's three environment variables it is the
chief or a worker of a distributed search; `launch.py` and `slurm_array.sh` set these variables.

    python search.py --directory FOLDER
"""

import argparse
import os

# A trial trains a small network, so many workers with one thread each are faster than one worker.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras_tuner as kt
from sklearn.datasets import load_digits

from spinkeras.search.durability import durable
from spinkeras.search.hypermodel import SpinHyperModel, dense_classifier
from spinkeras.search.objective import energy_front


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="shared by all processes")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument(
        "--lease", type=float, default=180.0, help="s until a worker counts as dead"
    )
    args = parser.parse_args()

    digits = load_digits()
    x, y = digits.data.astype("float32") / 16, digits.target
    hypermodel = SpinHyperModel(dense_classifier((64,), 10, hidden=(4, 64)))
    tuner = durable(kt.RandomSearch, lease=args.lease)(
        hypermodel,
        objective=hypermodel.objective.objective,
        max_trials=args.trials,
        directory=args.directory,
        project_name="search",
    )
    tuner.search(
        x[:1200],
        y[:1200],
        validation_data=(x[1200:], y[1200:]),
        epochs=args.epochs,
        batch_size=32,
        verbose=0,
    )
    # Only the chief, or the only process, knows all trials.
    if os.environ.get("KERASTUNER_TUNER_ID", "chief") == "chief":
        print("energy pJ  accuracy  trial")
        for row in energy_front(tuner):
            if row["on_front"]:
                print(f"{row['energy_pj']:9.3f}  {row['metric']:8.1%}  {row['trial_id']}")


if __name__ == "__main__":
    main()
