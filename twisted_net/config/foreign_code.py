"""Foreign code: what an operator's modules and plugins raise when they are loaded, in one line."""

from __future__ import annotations

import traceback

from twisted_net.net.characters import printable

MAX_DESCRIPTION = 500
"""Characters of what was raised that are shown; where it was raised is shown whole."""


def describe_failure(error: BaseException, *, secret: bool = False) -> str:
    """
    Describe in one line what foreign code raised, and where; of a group, its first error too.

    Catch ``BaseException`` around such code: a module that calls ``sys.exit`` when it is imported
    would otherwise end the process without a word, and with status 0.

    :param secret: whether to leave out the message, as it may repeat secret arguments.
    """
    what = type(error).__name__
    if not secret:
        what = traceback.format_exception_only(error)[-1].strip() or what
        # Before it is split: it may be of any length.
        if len(what) > MAX_DESCRIPTION:
            what = what[:MAX_DESCRIPTION] + "…"
        what = printable(" ".join(what.split()))
    if isinstance(error, SystemExit):
        what = f"it ends the process ({what})"
    if isinstance(error, BaseExceptionGroup):
        what += f": {describe_failure(error.exceptions[0], secret=secret)}"
    # Not that of the interpreter's own modules: exit() is in "<frozen _sitebuiltins>".
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError) and error.filename is not None:
        where = f" ({error.filename}, line {error.lineno})"
    return f"{what}{where}"
