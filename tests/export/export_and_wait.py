"""Exports a version and stops in the middle, for a test that kills it there.

Arguments: FOLDER STAGE with STAGE one of "write" (before the SavedModel is complete), "check"
(complete, not yet compared), "rename" (compared, not yet visible) or "none". Nothing public stops
between two stages, so private functions are replaced.
"""

import os
import sys
import time

import keras

import spinkeras
from spinkeras.export import saved_model

folder, stage = sys.argv[1:]


def wait(*args, **kwargs):
    print("here", flush=True)
    time.sleep(600)  # killed long before


if stage == "write":
    write = saved_model.Network.write

    def half(network, path, *args):
        write(network, path, *args)
        (path / "saved_model.pb").unlink()
        wait()

    saved_model.Network.write = half
elif stage == "check":
    saved_model._check_saved_model = wait
elif stage == "rename":
    os.rename = wait

keras.utils.set_random_seed(2)
model = keras.Sequential(
    [keras.Input((4,), name="x"), keras.layers.Dense(3), spinkeras.SpinNeuron(name="spin")]
)
print("exporting", flush=True)
saved_model.export_for_serving(model, folder, energy=False)
print("done", flush=True)
