"""The command `keras-resnet` as a process.

Results go to stdout (`--json`: one object), progress and errors to stderr. Exit codes: 0 success,
1 an exported file failed its check, 2 an error that the user can fix, 70 a bug of ours, 130
interrupted, 141 stdout was closed.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

from keras_resnet import onednn
from keras_resnet.cli import compress, parser, train
from keras_resnet.cli.options import Verb
from keras_resnet.display.console import own_streams, own_terminal
from keras_resnet.errors import UserError
from keras_resnet.lazy import quiet_import


def program(argv: Sequence[str] | None = None) -> int:
    """Run `main` as a process that owns its terminal."""
    own_streams()
    own_terminal()
    try:
        code = guarded(argv)
        sys.stderr.flush()
    except OSError:  # stderr is full, so no error can be told; Python would end with 120
        _print_no_more(sys.stderr)
        return 2
    return code


def guarded(argv: Sequence[str] | None = None) -> int:
    """Run `main`. A bug must not exit with Python's own 1, which is a failed check."""
    try:
        try:
            return main(argv)
        finally:
            sys.stdout.flush()  # here an error can be handled, at Python's end it cannot
    except BrokenPipeError:  # `| head` has read enough
        _print_no_more(sys.stdout)
        return 141  # 128 + SIGPIPE's number, as 130 is 128 + that of Ctrl-C
    except OSError as error:
        _print_no_more(sys.stdout)
        print(f"error: stdout: {error.strerror}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        print("error: this is a bug in keras-resnet; please report it", file=sys.stderr)
        return 70  # EX_SOFTWARE of sysexits.h


def _print_no_more(stream: TextIO) -> None:
    """Send what is left to nowhere: it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        options = parser.parse(list(sys.argv[1:] if argv is None else argv))
        verb = parser.VERBS[options.verb]
        if verb.check is not None:
            verb.check(options)
        if options.verb in (*train.VERBS, *compress.VERBS):  # before TensorFlow is imported
            onednn.turn_on(onednn.read_cpuinfo(), training=True)
        if not _needs_no_tensorflow(options):
            quiet_import("keras_resnet._public")  # fills the registry
        return _run(verb, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # not an error of the file; see `program`
        raise
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # training passes the folder of its run
        hint = f"; continue with: keras-resnet train --resume {error}" if error.args else ""
        print(f"interrupted{hint}", file=sys.stderr)
        return 130


def _run(verb: Verb, options: argparse.Namespace) -> int:
    if not getattr(options, "trust", False):
        return verb.run(options)
    from keras_resnet.export.runtimes.trust import trusting

    with trusting():
        return verb.run(options)


def _needs_no_tensorflow(options: argparse.Namespace) -> bool:
    if options.verb == "weights":
        return bool(options.action != "import")
    if options.verb in ("list", "show", "doctor"):  # a misspelt name to show is found without it
        return True
    return options.verb == "train" and bool(options.list)
