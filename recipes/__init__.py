"""From data to a model: programs to train and evaluate, one config file per reported number.

Programs are modules: `from keras_resnet.recipes import train`, then
`train.run(load_config("cifar10/resnet20"), out="runs/mine")`. Needs the extra `recipes`.
"""

from keras_resnet.recipes.compress import cluster_weights, prune_weights, qat
from keras_resnet.recipes.configs.schema import Config, load_config
from keras_resnet.recipes.data import Dataset, Split, load_dataset
from keras_resnet.recipes.filter_pruning import prune_filters

__all__ = [
    "Config",
    "Dataset",
    "Split",
    "cluster_weights",
    "load_config",
    "load_dataset",
    "prune_filters",
    "prune_weights",
    "qat",
]
