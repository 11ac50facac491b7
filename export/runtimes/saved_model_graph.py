"""Read the graph of a SavedModel as data, and refuse operations that are not on our list.

A SavedModel is a program. TensorFlow has operations that read and write files, start servers and
call Python, and it runs them like any other. So the graph is read before TensorFlow loads it, and
each operation must be in saved_model_operations.txt.

There is one exception: every SavedModel has one function that saves its variables and one that
restores them. TensorFlow's Python loader runs neither of them, because it reads the variables
itself. These two functions may hold operations on files, if nothing else in the SavedModel names
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from keras_resnet import keras_compat
from keras_resnet.errors import UserError

_LIST = Path(__file__).with_name("saved_model_operations.txt")
_OF_SAVER = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}
_MOST_BYTES = 2**31  # the limit of protocol buffers
_ADVICE = (
    "If you made the SavedModel, or trust its maker, add --trust (in Python: with "
    "keras_resnet.export.runtimes.trust.trusting(): …)."
)


def require_allowed(program: Path) -> None:
    """Refuse a saved_model.pb with an operation that is not on the list.

    Raises:
        UserError: there is such an operation, or the file is damaged or of TensorFlow 1.
    """
    graphs = _read(program).meta_graphs
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        raise UserError(
            f"{program} has TensorFlow 1's format, and loading it would run its own operations to "
            f"restore its variables. {_ADVICE}"
        )
    for place, operation in _operations(graphs[0]):
        if operation not in allowed():
            raise UserError(
                f"{program} is not opened: its {place} has the operation {operation!r:.60}, which "
                f"is not on the list of operations that only compute. {_ADVICE}"
            )


@cache
def allowed() -> frozenset[str]:
    """Return the names of the operations that a SavedModel may hold."""
    lines = _LIST.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _read(program: Path) -> Any:
    from google.protobuf.message import DecodeError

    if program.stat().st_size > _MOST_BYTES:
        raise UserError(f"{program} is damaged: it has more than 2 GiB.")
    try:
        return keras_compat.saved_model(program.read_bytes())
    except DecodeError as error:
        raise UserError(f"{program} is damaged: it cannot be read as a SavedModel.") from error


def _operations(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield (place, operation), without the saver's operations on files in its own functions."""
    for node in graph.graph_def.node:
        yield "graph", node.op
    saver = _functions_of_saver(graph)
    for function in graph.graph_def.library.function:
        name = function.signature.name
        for node in function.node_def:
            if not (name in saver and node.op in _OF_SAVER):
                yield f"function {name:.60}", node.op


def _functions_of_saver(graph: Any) -> set[str]:
    """Return the functions that only the saver calls."""
    saver = graph.saver_def
    own = {saver.restore_op_name, saver.save_tensor_name.partition(":")[0]}
    nodes = graph.graph_def.node
    called = {name for node in nodes if node.name in own for name in _called(node)}
    others: list[Any] = [node for node in nodes if node.name not in own]
    others += [graph.object_graph_def, graph.meta_info_def, *graph.signature_def.values()]
    others += [*graph.graph_def.library.gradient, *graph.graph_def.library.registered_gradients]
    library = graph.graph_def.library.function
    others += [node for function in library for node in function.node_def]
    texts = [message.SerializeToString() for message in others]
    return {name for name in called if not _is_in(name.encode(), texts)}


def _called(node: Any) -> Iterable[str]:
    return [value.func.name for value in node.attr.values() if value.HasField("func")]


def _is_in(name: bytes, texts: Iterable[bytes]) -> bool:
    return any(name in text for text in texts)
