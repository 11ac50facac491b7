"""Compute the logits of a network of torchvision or timm, as a separate program.

TensorFlow and torchvision in one process can crash, because both contain LLVM. This program
therefore imports neither keras_resnet nor Keras. `importing` writes the weights and images, and
reads the logits.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

import numpy as np

# torchvision's older DenseNet files have `norm.1` where its code now has `norm1`.
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")


def build(library: str, peer: str, classes: int, auxiliary: bool) -> Any:
    """Call their constructor, without trained weights."""
    if library == "timm":
        timm = importlib.import_module("timm")
        options = {"aux_logits": True} if auxiliary else {}
        return timm.create_model(peer, pretrained=False, num_classes=classes, **options)
    models = importlib.import_module("torchvision.models")
    options = {}
    if peer in ("googlenet", "inception_v3"):
        options = {"aux_logits": auxiliary, "init_weights": False}
    return models.get_model(peer, weights=None, num_classes=classes, **options)


def logits(network: Any, state_dict: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Run `images` (batch, height, width, 3) with the weights of `state_dict`, float32."""
    torch = importlib.import_module("torch")
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    arrays = {
        _OLD_DENSE_LAYER.sub(r"\1\2", name): torch.from_numpy(array)
        for name, array in state_dict.items()
    }
    network.load_state_dict({**counters, **arrays})
    network.eval()
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())))


def main() -> None:
    """Read the arguments: those of `build` in JSON, weights and images as .npz, the output .npy."""
    request, weights, images, out = sys.argv[1:]
    with np.load(weights) as file:
        state_dict = dict(file)
    np.save(out, logits(build(*json.loads(request)), state_dict, np.load(images)))


if __name__ == "__main__":
    main()
