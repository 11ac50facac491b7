"""A run that is killed and goes on: what a test and the process that it kills share."""

import os
import signal

import keras
import tensorflow as tf

# A checkpoint at every step, so that the state is one of mid-epoch.
RESUMED = {
    "train.epochs": 3,
    "train.checkpoint_minutes": 0.0,
    "augment.crop": "shift",
    "augment.flip": "alternating",
    "train.ema": 0.9,
    "network.stochastic_depth": 0.2,  # its random generators are part of the state
}


class KillAt(keras.callbacks.Callback):
    """Ends the process as kill -9 does, in the middle of an epoch."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def epochs_in(events):
    """The epochs whose loss stands in one of TensorBoard's files."""
    return [
        event.step
        for event in tf.compat.v1.train.summary_iterator(str(events))
        if any(value.tag == "epoch_loss" for value in event.summary.value)
    ]
