"""A callback that says when the first update is done, and ends the program."""

import os
import time

import keras


class FirstStep(keras.callbacks.Callback):
    """Print the time (`time.perf_counter`, which all processes of a Linux machine share)."""

    def on_train_batch_end(self, batch, logs=None):
        """End the process; a training of one step would also evaluate and save."""
        print(f"first step at {time.perf_counter()} s", flush=True)
        os._exit(0)
