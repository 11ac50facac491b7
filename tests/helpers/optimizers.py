"""A small training by each optimizer: what a test and the process with two devices share."""

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.recipes.configs.schema import OptimizerConfig
from keras_resnet.recipes.training import optimizers
from keras_resnet.recipes.training.loop import Loop

STEPS = 6
NAMES = ("adamw", "schedule_free_adamw", "muon", "lamb", "lars")


def schedule():
    return keras.optimizers.schedules.InverseTimeDecay(0.1, decay_steps=1, decay_rate=1.0)


def small_loop(strategy, name):
    """A small network with a depthwise kernel, on 8×8 images; no BN, which is per device."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.layers.Input((8, 8, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        x = keras.layers.DepthwiseConv2D(3, depth_multiplier=3, activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, keras.layers.Dense(4)(x))
        # Epsilon 1e-3, so that gradients of nothing but rounding do not become whole steps.
        config = OptimizerConfig(name, epsilon=1e-3, trust=0.1)
        variables = model.trainable_variables
        optimizer, l2 = optimizers.build(config, schedule(), 0.1, variables)
        model.compile(optimizer, auto_scale_loss=False)
    return Loop(strategy, model, optimizer, batch_size=8, weight_decay=l2)


def small_batches():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8 * STEPS, 8, 8, 3)).astype("uint8")
    labels = (np.arange(8 * STEPS) % 4).astype("int32")
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


def train_small(loop, steps=STEPS, skip=0):
    """Train, and return the weights."""
    iterator = loop.distribute(small_batches().skip(skip))
    for _ in range(steps):
        loop.train_step(iterator)
    return [v.numpy() for v in loop.model.trainable_variables]
