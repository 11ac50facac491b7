"""Auxiliary classifiers: their loss weights in training, and the network without them.

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

from keras_resnet.arguments import checked
from keras_resnet.errors import UserError

# By number of auxiliary classifiers; a saved, renamed or converted model still has that number.
_WEIGHTS = {0: 0.0, 1: 0.4, 2: 0.3}


def _outputs(model: keras.Model) -> dict[str, Any] | None:
    """Return the outputs by name if `model` has auxiliary ones, None if it has one output.

    Raises:
        UserError: the model has other outputs.
    """
    try:
        output = model.output
    except AttributeError as error:  # a Sequential that was never called
        raise UserError(
            f"'{model.name}' has no outputs yet. Give it an Input, or call it on an image."
        ) from error
    if isinstance(output, dict) and "predictions" in output and len(output) - 1 in _WEIGHTS:
        return output
    if isinstance(output, (dict, list, tuple)):
        names = list(output) if isinstance(output, dict) else f"{len(output)} outputs without names"
        raise UserError(
            "The model must have the output 'predictions' and one or two auxiliary outputs, like "
            f"create_model('googlenet', auxiliary=True); '{model.name}' has {names}."
        )
    return None


def by_name(outputs: Any) -> dict[str, Any]:
    """Return a model's outputs by their names; a single one is called "predictions"."""
    return outputs if isinstance(outputs, dict) else {"predictions": outputs}


@checked
def loss_weights(model: keras.Model) -> dict[str, float]:
    """Return the loss weight of each output: `{"predictions": 1.0, "aux1": 0.3, "aux2": 0.3}`.

    Two auxiliary classifiers, as in GoogLeNet, have weight 0.3 each (arXiv:1409.4842, section 5).
    A single one, as in Inception v3, has weight 0.4. The Inception v3 paper gives no weight; 0.4 is
    what TF-Slim trains with and PyTorch's tutorial fine-tunes with.

    Give `model.compile` a dictionary of losses with the same keys: Keras does not apply one loss to
    several weighted outputs.

    Args:
        model: a model of this package, from (batch, height, width, channels) to (batch, classes) or
            to a dictionary of such outputs (`auxiliary=True`).

    Returns:
        The weights by output name; `{"predictions": 1.0}` without auxiliary classifiers.

    Raises:
        UserError: the model has other outputs.
    """
    outputs = _outputs(model) or {"predictions": model.output}
    weight = _WEIGHTS[len(outputs) - 1]
    return {name: 1.0 if name == "predictions" else weight for name in outputs}


@checked
def inference_model(model: keras.Model) -> keras.Model:
    """Return `model` without its auxiliary classifiers: the same layers, with one output.

    The layers and weights are shared, not copied, so training one model changes both. The returned
    model is not compiled. A model with one output is returned unchanged.

    Args:
        model: a model from (batch, height, width, channels) to a dictionary of outputs
            (batch, classes), as with `auxiliary=True`, or to one output.

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
    if last.activation is keras.activations.linear:  # it only gives the logits their name
        predictions = last.input
    return keras.Model(model.input, predictions, name=model.name)
