"""Small models that tests of several rooms share."""

import keras

import keras_resnet


def user_cnn():
    """A classifier that knows nothing of keras_resnet: two branches, logits out, [0, 1] in."""
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((16, 20, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    y = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Concatenate()([x, keras.layers.ReLU(6.0)(y)])
    x = keras.layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(5)(x), name="mine")


def small_model(scale=1 / 255, synchronized_bn=False):
    """No BN unless it is synchronised: its statistics are per device on purpose."""
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.Rescaling(scale)(inputs)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    if synchronized_bn:
        x = keras_resnet.BatchNormalization(synchronized=True)(x)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
