"""Log messages: beside progress bars, in colours, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from sentence_embedder.progress import write_line

_NOTICE = 25


class LoggingHandler(logging.Handler):
    """Writes log messages above the progress bars that are shown, not through them.

    Args:
        level: The level from which on messages are written.

    Example:
        >>> logging.basicConfig(format="%(message)s", level=logging.INFO, handlers=[LoggingHandler()])
    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        try:
            write_line(self.format(record))
        except Exception:  # noqa: BLE001  # logging's own rule: what goes wrong here never reaches who logs
            self.handleError(record)


def install_logger(
    given_logger: logging.Logger,
    level: int | str = logging.WARNING,
    fmt: str = "%(levelname)s:%(name)s:%(message)s",
) -> None:
    """Let a logger write its messages: in colours if coloredlogs is installed, else by a LoggingHandler. It also
    gets a method ``notice``, for a level between INFO and WARNING.

    Args:
        given_logger: The logger.
        level: The level from which on messages are written.
        fmt: What a line looks like.
    """
    logging.addLevelName(_NOTICE, "NOTICE")
    setattr(given_logger, "notice", partial(given_logger.log, _NOTICE))  # noqa: B010  # no Logger has one
    try:
        import coloredlogs
    except ImportError:
        _install_plain(given_logger, level, fmt)
        return
    coloredlogs.install(
        logger=given_logger,
        level=level,
        fmt=fmt,
        use_chroot=False,
        level_styles={
            **coloredlogs.DEFAULT_LEVEL_STYLES,
            "debug": {"color": "white", "faint": True},
            "notice": {"color": "cyan", "bold": True},
        },
        field_styles={**coloredlogs.DEFAULT_FIELD_STYLES, "asctime": {}},
    )


def _install_plain(logger: logging.Logger, level: int | str, fmt: str) -> None:
    """Give a logger one LoggingHandler, in place of those that it has."""
    for handler in [handler for handler in logger.handlers if isinstance(handler, LoggingHandler)]:
        logger.removeHandler(handler)
    handler = LoggingHandler()
    handler.setFormatter(logging.Formatter(fmt))
    logger.addHandler(handler)
    logger.setLevel(level)


@contextmanager
def disable_logging(highest_level: int = logging.CRITICAL) -> Iterator[None]:
    """Within this context nothing is logged up to a level, by no logger.

    Args:
        highest_level: The level.
    """
    before = logging.root.manager.disable
    logging.disable(highest_level)
    try:
        yield
    finally:
        logging.disable(before)
