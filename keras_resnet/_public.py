"""The public names of `import keras_resnet`; `keras_resnet/__init__.py` imports them lazily."""

from types import MappingProxyType
from typing import TYPE_CHECKING

from keras_resnet.analysis.explain import explain
from keras_resnet.analysis.maximize import activation_maximization
from keras_resnet.analysis.networks import list_models
from keras_resnet.analysis.profile import profile
from keras_resnet.arguments import checked
from keras_resnet.display.sheets import Row, contact_sheet, overlay, pixel_map
from keras_resnet.errors import PixelRangeWarning, UntrainedWarning, UserError
from keras_resnet.images.labels import decode_predictions
from keras_resnet.images.preprocessing import load_images, preprocess
from keras_resnet.layers import BatchNormalization, Conv2D, LocalResponseNormalization, to_stock
from keras_resnet.models.auxiliary import inference_model, loss_weights
from keras_resnet.models.build import build
from keras_resnet.models.classic import (
    alexnet,
    densenet,
    googlenet,
    highway,
    inception,
    inception_resnet,
    vgg,
)
from keras_resnet.models.classic.alexnet import *  # noqa: F403
from keras_resnet.models.classic.chain import ChainSpec
from keras_resnet.models.classic.densenet import *  # noqa: F403
from keras_resnet.models.classic.googlenet import *  # noqa: F403
from keras_resnet.models.classic.highway import *  # noqa: F403
from keras_resnet.models.classic.inception import *  # noqa: F403
from keras_resnet.models.classic.inception_resnet import *  # noqa: F403
from keras_resnet.models.classic.vgg import *  # noqa: F403
from keras_resnet.models.deepen import deepen
from keras_resnet.models.ensemble import ensemble
from keras_resnet.models.network import Network
from keras_resnet.models.resnet import cifar, imagenet
from keras_resnet.models.resnet.cifar import *  # noqa: F403
from keras_resnet.models.resnet.imagenet import *  # noqa: F403
from keras_resnet.models.resnet.spec import ResNetSpec
from keras_resnet.registry import architecture, create_model, list_weights

if TYPE_CHECKING:
    import keras

preprocess_input = preprocess  # Keras' name for it

# The network for every registry name.
SPECS = MappingProxyType({name: architecture(name).network for name in list_models()})


@checked
def from_hub(name: str, revision: str = "") -> "keras.Model":
    """Load a Keras model that `keras-resnet push` uploaded to the Hugging Face Hub.

    Every file's hash is compared with the Hub's before the file is opened.

    Args:
        name: "USER/NAME".
        revision: a commit, a tag or a branch; "" for the newest.

    Returns:
        A model for RGB 0...255 with its normalisation inside. `labels.classes_of` and
        `decode_predictions` know its class names.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        UserError: there is no such model or revision, it is private, `push` did not write it, a
            file is damaged, or it is not in the cache and there is no connection.
    """
    # recipes is not imported before it is needed, because that chooses kernels for training
    from keras_resnet.recipes.runs.sources import find

    at = f"@{revision}" * bool(revision)
    return find(f"hf://{name.removeprefix('hf://')}{at}", keras=True).keras_model()


__all__ = [
    "SPECS",
    "BatchNormalization",
    "ChainSpec",
    "Conv2D",
    "LocalResponseNormalization",
    "Network",
    "PixelRangeWarning",
    "ResNetSpec",
    "Row",
    "UntrainedWarning",
    "UserError",
    "activation_maximization",
    "build",
    "contact_sheet",
    "create_model",
    "decode_predictions",
    "deepen",
    "ensemble",
    "explain",
    "from_hub",
    "inference_model",
    "list_models",
    "list_weights",
    "load_images",
    "loss_weights",
    "overlay",
    "pixel_map",
    "preprocess",
    "preprocess_input",
    "profile",
    "to_stock",
]
__all__ += imagenet.__all__
__all__ += cifar.__all__
__all__ += alexnet.__all__
__all__ += vgg.__all__
__all__ += googlenet.__all__
__all__ += inception.__all__
__all__ += inception_resnet.__all__
__all__ += densenet.__all__
__all__ += highway.__all__
