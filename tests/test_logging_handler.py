"""Log messages beside progress bars, in colours, or not at all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sentence_embedder import LoggingHandler
from sentence_embedder.logging_handler import disable_logging, install_logger
from sentence_embedder.progress import progress_bar


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own, that hands nothing on."""
    logger = logging.getLogger("tests.mine")
    logger.propagate = False
    yield logger
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, LoggingHandler)]
    logger.setLevel(logging.NOTSET)


def test_messages_are_written_beside_bars(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """While a bar is shown, a message is a line of its own on the standard output, and the bar is drawn anew."""
    logger.setLevel(logging.DEBUG)
    logger.addHandler(LoggingHandler(logging.INFO))
    with progress_bar(2, unit="text", shown=True) as progress:
        progress.update(1)
        logger.info("half of it")
        logger.debug("too little")

    printed = capsys.readouterr()
    assert printed.out == "half of it\n"
    assert printed.err.count("\r") > 2


def test_a_message_that_fails_does_no_harm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with any handler of logging: the fault is reported, not raised."""
    monkeypatch.setattr(logging, "raiseExceptions", True)

    LoggingHandler().handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))

    assert "Logging error" in capsys.readouterr().err


def test_a_logger_without_coloredlogs(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A logger writes plain lines, each once, however often it was set up; notices stand between infos and
    warnings.
    """
    monkeypatch.setitem(sys.modules, "coloredlogs", None)
    mine: Any = logger
    install_logger(mine)
    mine.notice("too little")
    install_logger(mine, logging.INFO, "%(levelname)s %(message)s")

    mine.info("one")
    mine.notice("%s", "two")
    mine.debug("three")

    assert capsys.readouterr().out == "INFO one\nNOTICE two\n"


def test_a_logger_with_coloredlogs(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where coloredlogs is installed, it sets the logger up, with its own styles but for few."""
    calls: list[dict[str, Any]] = []
    package = SimpleNamespace(
        DEFAULT_LEVEL_STYLES={"error": {"color": "red"}},
        DEFAULT_FIELD_STYLES={"name": {"color": "blue"}, "asctime": {"color": "green"}},
        install=lambda **settings: calls.append(settings),
    )
    monkeypatch.setitem(sys.modules, "coloredlogs", package)

    install_logger(logger, "INFO")

    (settings,) = calls
    assert (settings["logger"], settings["level"]) == (logger, "INFO")
    assert settings["fmt"] == "%(levelname)s:%(name)s:%(message)s"
    assert settings["level_styles"].keys() == {"error", "debug", "notice"}
    assert settings["field_styles"] == {"name": {"color": "blue"}, "asctime": {}}
    assert not any(isinstance(handler, LoggingHandler) for handler in logger.handlers)


def test_logging_can_be_disabled(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """Within the context nothing up to the level is logged; after it all is as it was."""
    logger.setLevel(logging.INFO)
    logger.addHandler(LoggingHandler())

    with disable_logging(logging.WARNING):
        logger.warning("unheard")
        logger.error("an error")
    logger.info("after it")

    assert capsys.readouterr().out == "an error\nafter it\n"
