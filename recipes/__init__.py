"""Programs to train and evaluate models, with one config file per reported number.

Programs are modules: `from keras_resnet.recipes import train`, then
`train.run(load_config("cifar10/resnet20"), out="runs/mine")`. They need the extra `recipes`.
Modules are imported on first use.
"""

from typing import TYPE_CHECKING, Any

import wrapt

from keras_resnet import onednn
from keras_resnet.lazy import lazy_names

if TYPE_CHECKING:
    from keras_resnet.recipes.compress import cluster_weights, prune_weights, qat
    from keras_resnet.recipes.compression.filters import prune_filters
    from keras_resnet.recipes.configs.schema import Config, load_config
    from keras_resnet.recipes.data.datasets import Dataset, Split, load_dataset
    from keras_resnet.recipes.runs import compare as compare
    from keras_resnet.recipes.runs import report as report
    from keras_resnet.recipes.runs import sources as sources

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

onednn.turn_on(onednn.read_cpuinfo(), training=True)


@wrapt.when_imported("keras")  # now, or when a program imports it later
def _require_tensorflow(_: Any) -> None:
    from keras_resnet.errors import require_tensorflow

    require_tensorflow("keras_resnet.recipes")


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Config": "keras_resnet.recipes.configs.schema:Config",
        "Dataset": "keras_resnet.recipes.data.datasets:Dataset",
        "Split": "keras_resnet.recipes.data.decoded:Split",
        "cluster_weights": "keras_resnet.recipes.compress:cluster_weights",
        "load_config": "keras_resnet.recipes.configs.schema:load_config",
        "load_dataset": "keras_resnet.recipes.data.datasets:load_dataset",
        "prune_filters": "keras_resnet.recipes.compression.filters:prune_filters",
        "prune_weights": "keras_resnet.recipes.compress:prune_weights",
        "qat": "keras_resnet.recipes.compress:qat",
        # Short names for modules that the docs and the notebooks use.
        "compare": "keras_resnet.recipes.runs.compare",
        "report": "keras_resnet.recipes.runs.report",
        "sources": "keras_resnet.recipes.runs.sources",
    },
)
