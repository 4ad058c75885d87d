"""The experiments: which runs each one needs.

An experiment is a function of a `Study`. It returns `{arm: results}` with one result per seed,
where an arm is one way to train. It trains missing runs; with a frozen study it only reads results.
"""

from runs import BOTH, FIXED, WIDTH, Run

PUBLISHED = Run(divisor=1000.0, batch_size=0, steps=1000, checkpoints=20)
TRAINED = {"fixed": FIXED, "pulse width": WIDTH, "pulse width + anisotropy": BOTH}
BOUNDS = (0.1, 0.3, 1.0)
PULSE_WIDTHS = (2e-9, 3e-9, 5e-9, 8e-9, 12e-9, 20e-9)  # s, the sweep of fixed ones
GAINS = (2.0, 4.0, 8.0)
BUDGETS = (4.0, 3.0, 2.0, 1.5, 1.0, 0.7)  # pJ per inference


def _seeds(study, runs, seeds):
    """`{arm: results}` of tuned runs, one per seed; runs train together if possible."""
    by_arm = {arm: [run.but(seed=s) for s in range(seeds)] for arm, run in runs.items()}
    study([run for some in by_arm.values() for run in some])
    return {arm: study(some) for arm, some in by_arm.items()}


def _tuned(study, runs, seeds=5, tuning_seeds=(100,), **options):
    """Like `_seeds`, but first tune the learning rate of every arm; the results include it."""
    tuned = dict(zip(runs, study.tune(list(runs.values()), seeds=tuning_seeds, **options)))
    results = _seeds(study, tuned, seeds)
    for arm, some in results.items():
        for result in some:
            result["rate"] = tuned[arm].learning_rate
    return results


def faithful(study):
    """The published protocol, 10 seeds."""
    arms = {arm: PUBLISHED.but(train=train) for arm, train in TRAINED.items()}
    tied = PUBLISHED.but(train=WIDTH, recenter=False)
    arms["threshold tied"] = tied
    arms["threshold tied, knob_scale 0.3"] = tied.but(knob_scale=0.3)
    return _seeds(study, arms, 10)


def faithful_tuned(study):
    """The published protocol, but with the learning rate tuned for every arm."""
    runs = {arm: PUBLISHED.but(train=train, checkpoints=10) for arm, train in TRAINED.items()}
    # With three seeds, because the largest rates that work for one seed fail for another.
    return _tuned(study, runs, 3, rates=(0.3, 1.0, 3.0), tuning_seeds=(100, 101, 102))


def tuned(study):
    """Small batches, tuned learning rates, with and without BatchNormalization."""
    runs = {arm: Run(train=train) for arm, train in TRAINED.items()}
    runs |= {f"{arm} + BatchNorm": runs[arm].but(batch_norm=True) for arm in list(runs)}
    return _tuned(study, runs)


def bounded(study):
    """Bounded weights, compared with the best common fixed pulse width and best fixed gain."""
    fixed = {(b, w): Run(weight_bound=b, pulse_width=w) for b in BOUNDS for w in PULSE_WIDTHS}
    gains = {(b, g): Run(weight_bound=b, gain=g) for b in BOUNDS for g in GAINS}
    trained = {
        (b, arm): Run(weight_bound=b, train=train)
        for b in BOUNDS
        for arm, train in TRAINED.items()
        if train
    }
    runs = fixed | gains | trained
    runs = dict(zip(runs, study.tune(list(runs.values()))))
    arms = {}
    for b in BOUNDS:
        arms[b, "fixed, 2 ns"] = runs[b, PULSE_WIDTHS[0]]
        arms[b, "best fixed pulse width"] = study.best([runs[b, w] for w in PULSE_WIDTHS])
        arms[b, "best fixed gain, 2 ns"] = study.best(
            [runs[b, PULSE_WIDTHS[0]], *(runs[b, g] for g in GAINS)]
        )
        for arm in TRAINED:
            if (b, arm) in runs:
                arms[b, arm] = runs[b, arm]
    results = _seeds(study, arms, 5)
    for key, run in arms.items():  # what was chosen, for the report
        for result in results[key]:
            result["chosen"] = (run.pulse_width, run.gain, run.learning_rate)
    return results


def widths(study, sizes=(25, 128, 512), epochs=10):
    """Wider networks."""
    results = {}
    for hidden in sizes:
        run = Run(hidden=(hidden,), steps=468 * epochs, checkpoints=10)
        runs = {
            (hidden, arm): run.but(train=train) for arm, train in TRAINED.items() if train != WIDTH
        }
        results |= _tuned(study, runs, seeds=3)
    return results


def lengths(study):
    """Four times as many steps, with the learning rate tuned for them."""
    return widths(study, sizes=(25, 128), epochs=40)


def pulses(study):
    """Bits instead of probabilities, for several numbers of pulses per neuron."""
    runs = {
        (output, arm): Run(hidden=(128,), train=train, output=output, pulses=(1, 2, 4, 8, 16))
        for output in ("probability", "sampled")
        for arm, train in TRAINED.items()
        if train != WIDTH
    }
    return _tuned(study, runs, seeds=3)


def budgets(study):
    """The best accuracy for a given energy per inference, with fixed and with trained knobs."""
    arms = {arm: Run(train=train) for arm, train in TRAINED.items() if train != WIDTH}
    results = {}
    for arm, run in zip(arms, study.tune(list(arms.values()))):
        limited = {(arm, b): run.but(checkpoints=10, budget_pj=b) for b in BUDGETS}
        results |= _seeds(study, {(arm, None): run} | limited, 3)
    return results


EXPERIMENTS = {
    "faithful": faithful,
    "faithful_tuned": faithful_tuned,
    "bounded": bounded,
    "tuned": tuned,
    "budgets": budgets,
    "pulses": pulses,
    "widths": widths,
    "lengths": lengths,
}
