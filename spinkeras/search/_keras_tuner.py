"""All use of keras-tuner's private API, in one place.

Tested with keras-tuner 1.4.7 and 1.4.8; `tests/search/test_keras_tuner.py` has one test for each
part used here. In addition `spinkeras.search.durability` overrides two private methods, because
there is no public hook. It overrides `Oracle._save_trial` to write the file of a trial as a whole,
and `Tuner._populate_initial_space` to record the hyperparameters with which a search begins.
"""

import keras_tuner as kt


def tuner_file(tuner):
    """Path of the file with a tuner's own state."""
    return tuner._get_tuner_fname()


def oracle_file(oracle):
    """Path of the file with the state of the search."""
    return oracle._get_oracle_fname()


def search_folder(oracle):
    """Folder of the search; its trials are in `trial_<id>` under it."""
    return oracle._project_dir


def trial_folder(oracle, trial_id):
    return oracle._get_trial_dir(trial_id)


def is_worker(tuner):
    """Whether this process is a worker, which gets its trials from a chief process."""
    return tuner._is_worker()


def waiting(oracle):
    """Ids of the trials that must run again, in this order."""
    return list(oracle._retry_queue)


def set_waiting(oracle, trial_ids):
    oracle._retry_queue = list(trial_ids)


def is_grid(oracle):
    return isinstance(oracle, kt.oracles.GridSearchOracle)


def place_in_grid(oracle):
    """State of a grid search that keras-tuner does not save: the order of trials, and the next."""
    linked = oracle._ordered_ids
    order, index = [], linked._next_index[None]
    while index is not None:
        order.append(linked._memory[index])
        index = linked._next_index[index]
    return {"order": order, "next": oracle._populate_next}


def set_place_in_grid(oracle, place):
    oracle._ordered_ids = type(oracle._ordered_ids)()
    for trial_id in place["order"]:
        oracle._ordered_ids.insert(trial_id)
    oracle._populate_next = place["next"]
