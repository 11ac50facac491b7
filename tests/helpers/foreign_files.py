"""Files as other libraries write them, small: what the tests of readers and imports share."""

import json

import h5py
import keras
import numpy as np
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
from peers.filling import state
from safetensors.numpy import save_file

from helpers import GOLDEN
from keras_resnet.weights.foreign.torch_names import FAMILIES, rename
from keras_resnet.weights.foreign.torch_weights import weights_of


def shapes(name):
    """The names and shapes of the peer's state dict (tests/peers/peers.py), and the gain."""
    with np.load(GOLDEN / "parity" / f"{name}.npz") as file:
        about = json.loads(file["about"].tobytes())
    return about["shapes"], about["gain"]


def peer_file(path, name):
    """Write the whole state dict of a peer, for 16 classes."""
    save_file(state(*shapes(name)), path)
    return path


def empty_file(path, name, without=()):
    """Write the names and shapes of a peer's state dict, and a byte of nothing for each number."""
    kept = {k: shape for k, shape in shapes(name)[0].items() if not k.startswith(tuple(without))}
    save_file({k: np.zeros(shape, np.int8) for k, shape in kept.items()}, path)
    return path


def like_peer(model, name, family):
    """A state dict for our small `model`, with the names that the larger network `name` has."""
    theirs = {rename(entry, FAMILIES[family]): entry for entry in shapes(name)[0]}
    ours = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
    ours["moving_variance"] = "running_var"
    rng = np.random.default_rng(0)
    entries = {}
    for layer in model.layers:
        for variable in layer.weights:
            shape = variable.shape
            if variable.name == "kernel":
                shape = (shape[-1], shape[-2], *shape[:-2])
            values = rng.normal(0, 0.3, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
            place = f"{layer.name}.{ours.get(variable.name, variable.name)}"
            entries[theirs[place]] = values.astype("float32")
    assert len(weights_of(entries)) == len(model.weights)
    return entries


def randomize(model):
    """Give the BNs of a model of any library (with or without gamma) a trained network's numbers,
    and the biases too, which start as zeros."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            for variable in layer.weights:
                low = -0.2 if variable.name in ("beta", "moving_mean") else 0.5
                variable.assign(rng.uniform(low, low + 0.7, shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.uniform(-0.2, 0.2, layer.bias.shape))
    return model


def legacy_file(path, model, whole=False):
    """Write the weights as Keras 1 and 2 did, with Keras' own writer."""
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file.create_group("model_weights") if whole else file, model)
    return path


def golden_logits(name):
    """What is known of the peer's network, and its logits by classifier."""
    with np.load(GOLDEN / "parity" / f"{name}.npz") as file:
        arrays = dict(file)
    about = json.loads(arrays.pop("about").tobytes())
    return about, arrays
