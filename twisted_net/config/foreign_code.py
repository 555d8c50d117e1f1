"""Foreign code: what an operator's modules and plugins raise when they are loaded, in one line."""

from __future__ import annotations

import traceback


def describe_failure(error: BaseException, *, secret: bool = False) -> str:
    """
    Describe in one line what foreign code raised, and where.

    Catch ``BaseException`` around such code: a module that calls ``sys.exit`` when it is imported
    would otherwise end the process without a word, and with status 0.

    :param secret: whether to leave out the message, as it may repeat secret arguments.
    """
    what = type(error).__name__
    if not secret:
        what = " ".join(traceback.format_exception_only(error)[-1].split()) or what
    if isinstance(error, SystemExit):
        what = f"it ends the process ({what})"
    # Not that of the interpreter's own modules: exit() is in "<frozen _sitebuiltins>".
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    return f"{what}{where}"
