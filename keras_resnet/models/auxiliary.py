"""Auxiliary classifiers: how much they count in training, and the network without them.

model = keras_resnet.GoogLeNet(auxiliary=True)
weights = keras_resnet.loss_weights(model)
losses = dict.fromkeys(weights, "sparse_categorical_crossentropy")
model.compile("sgd", loss=losses, loss_weights=weights)
model.fit(images, dict.fromkeys(weights, labels))
keras_resnet.inference_model(model).save("googlenet.keras")
"""

from __future__ import annotations

from typing import Any

import keras

from keras_resnet.errors import UserError

# By the number of auxiliary classifiers, which a saved, renamed or converted model still tells.
_WEIGHTS = {0: 0.0, 1: 0.4, 2: 0.3}


def _outputs(model: keras.Model) -> dict[str, Any] | None:
    """The outputs by name if `model` has auxiliary ones, None if it has one output.

    Raises:
        UserError: other outputs than these.
    """
    output = model.output
    if isinstance(output, dict) and "predictions" in output and len(output) - 1 in _WEIGHTS:
        return output
    if isinstance(output, (dict, list, tuple)):
        names = list(output) if isinstance(output, dict) else f"{len(output)} outputs without names"
        raise UserError(
            "Expected a classifier with the output 'predictions' and up to two auxiliary ones "
            f"(as create_model('googlenet', auxiliary=True) gives); '{model.name}' has {names}."
        )
    return None


def loss_weights(model: keras.Model) -> dict[str, float]:
    """What each output's loss counts: `{"predictions": 1.0, "aux1": 0.3, "aux2": 0.3}`.

    0.3 is the weight of each of GoogLeNet's two (arXiv:1409.4842, section 5). A single one, as
    Inception v3's, has 0.4, with which TF-Slim trains it and PyTorch's tutorial fine-tunes it; its
    paper gives none.

    Give `model.compile` a dictionary of losses with the same keys: Keras does not share one loss
    among weighted outputs.

    Args:
        model: of this zoo, from (batch, height, width, channels) to (batch, classes), or to a
            dictionary of such outputs, as `auxiliary=True` gives.

    Returns:
        By the output's name; of a network without auxiliary classifiers `{"predictions": 1.0}`.

    Raises:
        UserError: the model has other outputs.
    """
    outputs = _outputs(model) or {"predictions": model.output}
    weight = _WEIGHTS[len(outputs) - 1]
    return {name: 1.0 if name == "predictions" else weight for name in outputs}


def inference_model(model: keras.Model) -> keras.Model:
    """Return `model` without its auxiliary classifiers: one output, and the same layers.

    Layers and weights are shared, not copied: training one changes both. What it was compiled with
    stays with `model`. A model that has one output is returned as it is.

    Args:
        model: from (batch, height, width, channels) to a dictionary of outputs (batch, classes), as
            `auxiliary=True` gives, or to one.

    Returns:
        A model from the same images to (batch, classes).

    Raises:
        UserError: the model has other outputs.
    """
    outputs = _outputs(model)
    if outputs is None:
        return model
    predictions = outputs["predictions"]
    last = model.get_layer("predictions")
    if last.activation is keras.activations.linear:  # what names the logits among several outputs
        predictions = last.input
    return keras.Model(model.input, predictions, name=model.name)
