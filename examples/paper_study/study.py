"""Run the published experiment and its controls, as a study that can be interrupted.

    python examples/paper_study/study.py                     # everything on MNIST, hours
    python examples/paper_study/study.py faithful bounded    # some experiments
    python examples/paper_study/study.py --dataset digits    # scikit-learn's digits, minutes
    python examples/paper_study/report.py                    # tables and figures of the results

An interrupted study continues where it stopped; a trained network is not trained again.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from experiments import EXPERIMENTS
from runs import Study


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", metavar="experiment", help="default: all")
    parser.add_argument("--dataset", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--data", help="folder with mnist.npz (default: download by Keras)")
    parser.add_argument("--results", help="default docs/results/paper_study_<dataset>.jsonl")
    args = parser.parse_args()
    unknown = set(args.experiments) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"unknown experiments {sorted(unknown)}; choose from {list(EXPERIMENTS)}")
    path = args.results or f"docs/results/paper_study_{args.dataset}.jsonl"
    study = Study(path, args.data, args.dataset)
    for name in args.experiments or EXPERIMENTS:
        print(f"--- {name}", flush=True)
        EXPERIMENTS[name](study)


if __name__ == "__main__":
    main()
