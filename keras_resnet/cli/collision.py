"""Notice another project that installs a folder `keras_resnet` over ours.

`keras-resnet` on PyPI is another project. Installed after ours, it overwrites files of our package;
uninstalled, it deletes them. Only the standard library is imported here, because any file of ours
may be the other project's.
"""

from __future__ import annotations

import importlib.metadata

_OURS, _THEIRS = "keras-resnet-zoo", "keras-resnet"
_MEND = f"pip install --force-reinstall --no-deps {_OURS}"


def problem() -> str | None:
    """Return the fault and the command that mends it; None if our files are ours."""
    try:
        version = importlib.metadata.version(_THEIRS)
    except importlib.metadata.PackageNotFoundError:
        return _deleted()
    return (
        f"'{_THEIRS}' {version}, which is another project, is installed in the same folder and "
        f"overwrites files of {_OURS}. To mend it: pip uninstall --yes {_THEIRS} && {_MEND}"
    )


def _deleted() -> str | None:
    import keras_resnet

    if getattr(keras_resnet, "__version__", None) is not None:
        return None
    return (
        f"files of {_OURS} are missing, as after 'pip uninstall {_THEIRS}', which is another "
        f"project with the same folder. To mend it: {_MEND}"
    )
