"""What is measured: each workload says what it costs an engine to do it once."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.engines import Device, Engine
from benchmarks.models import RANDOM_MODELS
from benchmarks.session import Session
from benchmarks.texts import (
    QUERY,
    count_tokens,
    generated_sentences,
    paragraphs,
    ragged_texts,
    short_sentences,
)

_BYTES_PER_VALUE = 4
"""Of a float32."""


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """A thing to do.

    Attributes:
        key: Its name on the command line and in the JSON.
        title: Its name in tables.
        model: Name of the model.
        is_repeated: Whether it is done in every round; else once, and not to warm up.
    """

    key: str
    title: str
    model: str = "minilm"
    is_repeated: bool = True

    @abstractmethod
    def cost(self, engine: Engine, session: Session) -> float:
        """What it costs to do it once: seconds, unless the workload says otherwise."""

    def takes(self, engine: Engine) -> bool:  # noqa: ARG002
        """Whether it is for that engine."""
        return True

    def rows(self, engine: Engine, session: Session) -> NDArray[Any] | None:  # noqa: ARG002
        """The embeddings (texts, dim) that the engine made last, if they are worth comparing."""
        return None

    def shown(self, cost: float) -> str:
        """A cost as people read it."""
        return f"{cost:.2f} s"

    def facts(self) -> dict[str, Any]:
        """What else the JSON says of it."""
        return {"title": self.title, "model": self.model}


@dataclass(frozen=True, kw_only=True)
class Encoding(Workload):
    """Texts through a model that is loaded and warm.

    Attributes:
        texts: The texts.
        tokens: How many tokens they are.
        repeats: How many times they are embedded for one cost, which is the median.
        is_rate: Whether a cost is shown as texts per second, rather than as time.
    """

    texts: Sequence[str]
    tokens: int
    repeats: int = 1
    is_rate: bool = True

    def cost(self, engine: Engine, session: Session) -> float:
        """Seconds."""
        return median(session.encode(engine, self.model, self.key, self.texts, repeats=self.repeats))

    def takes(self, engine: Engine) -> bool:
        """All for the model that most people use; for others none that they would first have to be exported for."""
        return self.model == "minilm" or engine.library.export is None

    def rows(self, engine: Engine, session: Session) -> NDArray[Any]:
        """See Workload."""
        return session.last_rows(engine, self.model)

    def shown(self, cost: float) -> str:
        """Texts per second, or milliseconds."""
        return f"{_digits(len(self.texts) / cost)}/s" if self.is_rate else f"{_digits(cost * 1e3)} ms"

    def facts(self) -> dict[str, Any]:
        """See Workload."""
        return {**super().facts(), "texts": len(self.texts), "tokens": self.tokens, "repeats": self.repeats}


@dataclass(frozen=True, kw_only=True)
class BusyEncoding(Encoding):
    """The same, while another program keeps a core busy."""

    def cost(self, engine: Engine, session: Session) -> float:
        """Seconds."""
        busy = [sys.executable, "-u", "-c", "print('busy')\nwhile True: pass"]
        with subprocess.Popen(busy, stdout=subprocess.PIPE) as program:
            try:
                if program.stdout is not None:
                    program.stdout.readline()  # it has begun
                return super().cost(engine, session)
            finally:
                program.kill()


@dataclass(frozen=True, kw_only=True)
class Import(Workload):
    """A fresh interpreter that imports a library and ends."""

    def cost(self, engine: Engine, session: Session) -> float:
        """Seconds."""
        return session.time_of_import(engine)

    def takes(self, engine: Engine) -> bool:
        """One engine of each library: options make no difference."""
        return engine.precision == "fp32"


@dataclass(frozen=True, kw_only=True)
class ColdStart(Workload):
    """A fresh interpreter that imports a library, loads a model, embeds a query and ends."""

    def cost(self, engine: Engine, session: Session) -> float:
        """Seconds."""
        return session.time_of_cold_start(engine, self.model, QUERY)


@dataclass(frozen=True, kw_only=True)
class PoolEncoding(Workload):
    """A pool of processes, started, used once and stopped.

    Attributes:
        texts: The texts.
        processes: How many processes.
    """

    texts: Sequence[str]
    processes: int = 2

    def cost(self, engine: Engine, session: Session) -> float:
        """Seconds."""
        return session.pool(engine, self.model, self.key, self.texts, processes=self.processes)

    def takes(self, engine: Engine) -> bool:
        """Those that have pools."""
        return engine.precision == "fp32" and engine.library.loader in (
            "sentence_embedder",
            "sentence_transformers",
        )

    def rows(self, engine: Engine, session: Session) -> NDArray[Any]:
        """See Workload."""
        return session.last_rows(engine, self.model)

    def facts(self) -> dict[str, Any]:
        """See Workload."""
        return {**super().facts(), "texts": len(self.texts), "processes": self.processes}


@dataclass(frozen=True, kw_only=True)
class Growth(Workload):
    """How much memory it takes to embed many texts.

    Attributes:
        texts: The texts.
        width: Values in a row of the result.
    """

    texts: Sequence[str]
    width: int

    @property
    def result_bytes(self) -> int:
        """Size of the result."""
        return len(self.texts) * self.width * _BYTES_PER_VALUE

    def cost(self, engine: Engine, session: Session) -> float:
        """Peak growth of resident memory above what was resident before, in sizes of the result."""
        return session.growth(engine, self.model, self.key, self.texts) / self.result_bytes

    def takes(self, engine: Engine) -> bool:
        """One engine of each library, but none that the model would first have to be exported for."""
        return engine.precision == "fp32" and engine.library.export is None

    def rows(self, engine: Engine, session: Session) -> NDArray[Any]:
        """See Workload."""
        return session.last_rows(engine, self.model)

    def shown(self, cost: float) -> str:
        """In sizes of the result."""
        return f"{cost:.2f} results"

    def facts(self) -> dict[str, Any]:
        """See Workload."""
        return {**super().facts(), "texts": len(self.texts), "result_bytes": self.result_bytes}


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        short: Short sentences.
        mixed: Paragraphs.
        base: Paragraphs for base-size models.
        memory: Short sentences whose embeddings' memory is measured.
        single: Times that a lone query is embedded for one cost.
        busy: Times that it is beside a busy program.
        ragged: Times that the ragged batch is.
        pool: Short sentences for a pool of processes.
    """

    short: int = 3_000
    mixed: int = 400
    base: int = 100
    memory: int = 150_000
    single: int = 200
    busy: int = 20
    ragged: int = 10
    pool: int = 20_000


_QUICK = Sizes(short=64, mixed=16, base=8, memory=2_000, single=10, busy=5, ragged=2, pool=64)


def sizes_for(device: Device, *, is_quick: bool) -> Sizes:
    """A GPU gets ten times the sentences, and all paragraphs that there are."""
    if is_quick:
        return _QUICK
    sizes = Sizes()
    return (
        replace(sizes, short=10 * sizes.short, mixed=10 * sizes.mixed, base=4 * sizes.base)
        if device == "cuda"
        else sizes
    )


def _short(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    texts = short_sentences(sizes.short)
    return Encoding(key="short", title="short sentences", texts=texts, tokens=_tokens(texts, tokenizer))


def _mixed(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    texts = paragraphs(sizes.mixed, tokenizer)
    return Encoding(key="mixed", title="mixed paragraphs", texts=texts, tokens=_tokens(texts, tokenizer))


def _ragged(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    texts = ragged_texts(32, tokenizer)
    tokens = _tokens(texts, tokenizer)
    return Encoding(
        key="ragged32", title="ragged 32", texts=texts, tokens=tokens, repeats=sizes.ragged, is_rate=False
    )


def _single(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    return _query(Encoding, "single", "single query", sizes.single, tokenizer)


def _single_busy(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    return _query(BusyEncoding, "single-busy", "single query, busy core", sizes.busy, tokenizer)


def _query(kind: type[Encoding], key: str, title: str, repeats: int, tokenizer: Tokenizer) -> Workload:
    tokens = _tokens([QUERY], tokenizer)
    return kind(key=key, title=title, texts=[QUERY], tokens=tokens, repeats=repeats, is_rate=False)


def _import(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    del sizes, tokenizer
    return Import(key="import", title="import")


def _cold_start(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    del sizes, tokenizer
    return ColdStart(key="cold-start", title="cold start")


def _pool(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    del tokenizer
    return PoolEncoding(key="pool", title="pool of two", texts=short_sentences(sizes.pool))


def _memory(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
    del tokenizer
    width = RANDOM_MODELS["one-layer"].config["hidden_size"]
    texts = generated_sentences(sizes.memory)
    return Growth(key="memory", title="memory", model="one-layer", is_repeated=False, texts=texts, width=width)


def _of_model(model: str) -> Callable[[Sizes, Tokenizer], Workload]:
    def build(sizes: Sizes, tokenizer: Tokenizer) -> Workload:
        texts = paragraphs(sizes.base, tokenizer)
        tokens = _tokens(texts, tokenizer, limit=RANDOM_MODELS[model].max_seq_length)
        return Encoding(key=model, title=model, model=model, texts=texts, tokens=tokens)

    return build


def _digits(figure: float) -> str:
    """A positive figure with three digits or more."""
    return f"{figure:,.{0 if figure >= 100 else 1 if figure >= 10 else 2}f}"


def _tokens(texts: Sequence[str], tokenizer: Tokenizer, *, limit: int = 256) -> int:
    return count_tokens(texts, tokenizer, limit)


_SHAPES = tuple(name for name in RANDOM_MODELS if name.startswith(("base-", "small-")))

WORKLOADS: Mapping[str, Callable[[Sizes, Tokenizer], Workload]] = {
    "short": _short,
    "mixed": _mixed,
    "ragged32": _ragged,
    "single": _single,
    "single-busy": _single_busy,
    "import": _import,
    "cold-start": _cold_start,
    "pool": _pool,
    "memory": _memory,
    **{name: _of_model(name) for name in _SHAPES},
}
"""Key → what makes it, in the order in which they are measured: those of one model one after the other."""
