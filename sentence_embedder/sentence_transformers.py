"""SentenceTransformer: the class that turns text into vectors."""

from __future__ import annotations

import copy
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from sentence_embedder import hub, saved_model
from sentence_embedder.acceleration.acceleration import Acceleration
from sentence_embedder.acceleration.dtypes import check_dtype
from sentence_embedder.argument_names import also_named
from sentence_embedder.deferred import is_deferred_inside, is_training
from sentence_embedder.devices import check_fork, get_device_name, give_back_memory, is_all_on, module_device
from sentence_embedder.encoding.chain import links_of, no_tokenizer
from sentence_embedder.encoding.collector import Collector, Output, Rows, collector_for
from sentence_embedder.encoding.cut_texts import CutTexts, Truncation
from sentence_embedder.encoding.encode_call import EncodeCall
from sentence_embedder.encoding.engine import text_length
from sentence_embedder.encoding.findings import Findings
from sentence_embedder.encoding.inputs import DistinctTexts, Kind, as_items, chunks_of
from sentence_embedder.encoding.late_chunks import DividedText, TokenModel, chunk_embeddings, divided, groups_of
from sentence_embedder.encoding.nonfinite import NonFiniteRows, OnNonFinite
from sentence_embedder.encoding.options import EncodeArguments, EncodeOptions, OutputValue, container_for
from sentence_embedder.encoding.sharing import Sharing
from sentence_embedder.encoding.token_budget import TokenBudget
from sentence_embedder.features import Features
from sentence_embedder.forks import a_model_is_made, compute_alone_if_forked
from sentence_embedder.formats import ModelConfig, ModuleEntry
from sentence_embedder.grad_mode import grad_mode_kept
from sentence_embedder.hub.card_metadata import CardMetadata
from sentence_embedder.input_example import InputExample
from sentence_embedder.model_card import CardFacts, render
from sentence_embedder.model_card_data import SentenceTransformerModelCardData
from sentence_embedder.models import BoW, Pooling, Router, StaticEmbedding, Transformer, WordEmbeddings
from sentence_embedder.placement import Placement
from sentence_embedder.pool.encode_pool import EncodePool, Pool, check_chunk_size
from sentence_embedder.pool.own_encode import OwnEncode, PoolOfOwnEncode, takes_pool
from sentence_embedder.pool.request import Request
from sentence_embedder.progress import is_seen, progress_bar
from sentence_embedder.prompts import (
    DOCUMENT_PROMPT_NAMES,
    QUERY_PROMPT_NAMES,
    apply_prompt,
    check_prompt_name,
    first_named,
    resolve_prompt,
)
from sentence_embedder.quantization.calibration import Calibration
from sentence_embedder.quantization.precision import CALIBRATED_PRECISIONS, Precision, as_numpy
from sentence_embedder.saved_model import LoadArguments, SavedModel
from sentence_embedder.serving.batcher import Batcher
from sentence_embedder.similarity import Embeddings, SimilarityFunction, as_tensor, truncate_embeddings
from sentence_embedder.similarity import normalize_embeddings as normalize
from sentence_embedder.transient import Transient
from sentence_embedder.version import __version__
from sentence_embedder.whole_number import is_whole, whole_or_none

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from sentence_embedder.training.plan import AmpDtype
    from sentence_embedder.training.training_record import LoggedSteps, TrainingRecord

logger = logging.getLogger(__name__)

_API_LEVEL = "2.7.0"
"""The version of sentence-transformers whose files are written."""

_INSTRUCTOR_MODELS = tuple(f"hkunlp/instructor-{size}" for size in ("base", "large", "xl"))
"""Models whose instructions are not pooled, which their files do not say."""

_NOT_CALIBRATED = frozenset(
    {"precision", "normalize_embeddings", "output_value", "convert_to_numpy", "convert_to_tensor", "out"}
)
"""Arguments of ``encode`` that say what becomes of embeddings, of which there are ranges before that."""

_Result = TypeVar("_Result")
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _typed_like(method: _Method) -> Callable[[Callable[..., Any]], _Method]:
    """Let type checkers and editors take a method for one with the arguments and results of another."""
    del method
    return lambda own: cast("_Method", own)


class SentenceTransformer(nn.Sequential):
    """A chain of modules that turns texts into embeddings.

    As an ``nn.Sequential`` it can be indexed, sliced, iterated, moved and trained. Called with Features it
    sends them through its modules; ``encode`` is for texts.

    Args:
        model_name_or_path: A model folder, or the name of a model on the Hugging Face Hub, where a name
            without an owner belongs to ``sentence-transformers``. A transformer that is no
            sentence-transformers model gets a mean pooling, or last-token pooling if it is causal.
        modules: Modules to make a model of, instead: the first has ``tokenize``, and one makes
            ``sentence_embedding``.
        device: Where to compute: ``"cuda"``, ``"cpu"``, ``"mps"`` …; by default the best there is.
        prompts: Name → text that can be put before texts; replaces the prompts of a loaded model.
        default_prompt_name: The prompt that ``encode`` uses when it is given none.
        cache_folder: Where downloads are kept; by default where the environment variable
            ``SENTENCE_TRANSFORMERS_HOME`` says, or else in the Hub's own cache.
        trust_remote_code: Whether code in the model's repository may run.
        revision: Branch, tag or commit of the model on the Hub.
        token: Token for private models; True for the one stored on this machine.
        use_auth_token: The older name of ``token``.
        truncate_dim: Width to which ``encode`` cuts embeddings.
        similarity_fn_name: What ``similarity`` computes: ``"cosine"`` (the default), ``"dot"``,
            ``"euclidean"`` or ``"manhattan"``.
        local_files_only: Whether nothing may be fetched.
        refresh: Whether the Hub is asked for a newer commit of a model that is in the cache; without it that costs
            no request.
        model_kwargs: Keyword arguments for ``AutoModel.from_pretrained``, such as ``{"dtype": "float16"}``;
            without a ``dtype`` weights are computed in float32.
        tokenizer_kwargs: Keyword arguments for ``AutoTokenizer.from_pretrained``.
        config_kwargs: Keyword arguments for ``AutoConfig.from_pretrained``.
        processor_kwargs: The newer name of ``tokenizer_kwargs``.
        model_card_data: What the card of the model says of it; see there.
        backend: What computes; only ``"torch"`` is there.
        acceleration: Whether ``encode`` may compute the same numbers in a faster way than module by module.
        dtype: The number format of the products in ``encode`` and ``encode_chunks``: ``"float32"``; ``"bfloat16"``
            or ``"float16"``, with sums, norms and pooling in float32; or ``"auto"``, the fastest format of the
            device that keeps the cosine similarity to float32 above 0.9999. The weights stay as they are.

    Raises:
        FileNotFoundError: There is no such folder, or a file is missing in it.
        HubError: The Hub has no such model, or does not give it, or cannot be reached. An ``OSError``.
        FormatError: A file of the model does not hold what it should. A ``ValueError``.
        ValueError: An argument has a value that does not exist.

    Example:
        >>> model = SentenceTransformer("all-MiniLM-L6-v2")
        >>> model.encode(["one sentence", "another"]).shape
        (2, 384)
    """

    def __init__(
        self,
        model_name_or_path: str | None = None,
        modules: Iterable[nn.Module] | None = None,
        device: str | torch.device | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        token: bool | str | None = None,
        use_auth_token: bool | str | None = None,
        truncate_dim: int | None = None,
        *,
        similarity_fn_name: str | SimilarityFunction | None = None,
        local_files_only: bool = False,
        refresh: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        model_card_data: SentenceTransformerModelCardData | None = None,
        backend: Literal["torch"] = "torch",
        acceleration: bool = True,
        dtype: str | torch.dtype = "float32",
    ) -> None:
        if backend != "torch":
            raise ValueError(f"backend: expected 'torch', found {backend!r}")
        device = torch.device(device or get_device_name())
        check_fork(device)
        dtype = check_dtype(dtype, device)
        if dtype != "float32" and not acceleration:
            raise ValueError(f"dtype: expected 'float32' with acceleration=False, found {dtype!r}")
        saved, base = SavedModel(modules=_named(modules)), None
        if model_name_or_path:
            if modules is not None:
                logger.warning("model_name_or_path and modules were both given: modules is ignored")
            source = hub.ModelSource(
                name=str(model_name_or_path),
                revision=revision,
                token=_token(token, use_auth_token),
                cache_folder=cache_folder,
                local_files_only=local_files_only,
                refresh=refresh,
            )
            arguments = LoadArguments(
                model_args=model_kwargs or {},
                tokenizer_args={**(processor_kwargs or {}), **(tokenizer_kwargs or {})},
                config_args=config_kwargs or {},
                trust_remote_code=trust_remote_code,
                local_files_only=local_files_only,
            )
            folder, saved = _load(source, arguments)
            base = source.origin(folder)
        super().__init__()
        self._entries: Mapping[str, ModuleEntry] = saved.entries
        self._loaded_card = self._model_card_text = saved.card
        self.model_card_data = copy.copy(model_card_data) or SentenceTransformerModelCardData()
        self._has_told_of_cuts = self._has_hinted_at_prompts = False
        self._training_facts: Mapping[str, Any] = {}
        self._training_record: TrainingRecord | None = None
        self._own_batcher: Transient[Batcher] = Transient()
        self._token_budget = TokenBudget()
        self._sharing = Sharing()
        self._placement = Placement()
        self._set_config(saved.config, prompts, default_prompt_name, truncate_dim, similarity_fn_name)
        for name, module in saved.modules.items():
            self._add(name, module, model_name_or_path)
        base = base or self._origin_of_transformer()
        if base is not None and self.model_card_data.base_model is None:
            self.model_card_data.set_base_model(*base)
        if model_name_or_path in _INSTRUCTOR_MODELS:
            self.set_pooling_include_prompt(False)
        self._acceleration = Acceleration(enabled=acceleration, dtype=dtype)
        self.to(device)
        a_model_is_made()

    def _set_config(
        self,
        config: ModelConfig,
        prompts: Mapping[str, str] | None,
        default_prompt_name: str | None,
        truncate_dim: int | None,
        similarity_fn_name: str | SimilarityFunction | None,
    ) -> None:
        """Take what was saved beside the modules, and before it what the caller gives."""
        self._model_config = config
        self.prompts = dict(config.prompts if prompts is None else prompts)
        self.default_prompt_name = default = default_prompt_name or config.default_prompt_name
        if default is not None:
            check_prompt_name(self.prompts, default, "default_prompt_name")
            logger.info("prompt %r is put before every text by default", default)
        self.truncate_dim = config.truncate_dim if truncate_dim is None else truncate_dim
        saved = config.similarity_fn_name
        self._similarity_fn_name = saved if saved in SimilarityFunction.possible_values() else None
        if similarity_fn_name is not None:
            self.similarity_fn_name = similarity_fn_name
        known = config.calibration
        self.calibration: Calibration | None = None if known is None else Calibration.from_dict(known)

    def _add(self, name: str, module: nn.Module, source: str | None) -> None:
        try:
            self.add_module(name, module)
        except KeyError as error:  # it is that of a method, or of an attribute
            raise ValueError(f"{source or 'modules'}: expected another name for a module than {name!r}") from error

    def _origin_of_transformer(self) -> tuple[str, str | None] | None:
        """The name on the Hub, if it has one, of the checkpoint that the first module was made of."""
        first = next(iter(self), None)
        model = first.model_seen if isinstance(first, Transformer) else getattr(first, "auto_model", None)
        config = getattr(model, "config", None)
        name = str(getattr(config, "_name_or_path", ""))
        is_of_hub = name and not hub.ModelSource(name=name).is_path and not Path(name).exists()
        return (name, None) if is_of_hub else None

    # ── Texts to vectors ──────────────────────────────────────────────────────────────────────────────────

    @overload
    def encode(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: Literal[True] = True,
        convert_to_tensor: Literal[False] = False,
        device: str | torch.device | list[Any] | tuple[Any, ...] | None = None,
        normalize_embeddings: bool = False,
        *,
        truncate_dim: int | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        out: NDArray[Any] | None = None,
        truncation: Truncation | CutTexts = "warn",
        on_nonfinite: OnNonFinite | NonFiniteRows = "nan",
        deterministic: bool = False,
        **kwargs: Any,
    ) -> NDArray[Any]: ...

    @overload
    def encode(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: Literal[True],
        **arguments: Unpack[EncodeArguments],
    ) -> Tensor: ...

    @overload
    def encode(
        self,
        sentences: str,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        convert_to_numpy: Literal[False],
        **arguments: Unpack[EncodeArguments],
    ) -> Tensor: ...

    @overload
    def encode(
        self,
        sentences: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        convert_to_numpy: Literal[False],
        **arguments: Unpack[EncodeArguments],
    ) -> list[Tensor]: ...

    @overload
    def encode(
        self,
        sentences: str,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        output_value: Literal["token_embeddings"],
        **arguments: Unpack[EncodeArguments],
    ) -> Tensor: ...

    @overload
    def encode(
        self,
        sentences: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        output_value: Literal["token_embeddings"],
        **arguments: Unpack[EncodeArguments],
    ) -> list[Tensor]: ...

    @overload
    def encode(
        self,
        sentences: str,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        output_value: None,
        **arguments: Unpack[EncodeArguments],
    ) -> Features: ...

    @overload
    def encode(
        self,
        sentences: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        output_value: None,
        **arguments: Unpack[EncodeArguments],
    ) -> list[Features]: ...

    @overload
    def encode(self, sentences: Any, *args: Any, **kwargs: Any) -> Any: ...

    @also_named(inputs="sentences")
    def encode(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: OutputValue | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | list[Any] | tuple[Any, ...] | None = None,
        normalize_embeddings: bool = False,
        *,
        truncate_dim: int | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        out: Output | None = None,
        truncation: Truncation | CutTexts = "warn",
        on_nonfinite: OnNonFinite | NonFiniteRows = "nan",
        deterministic: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The embeddings of texts.

        Args:
            sentences: A text, or a list, tuple, array, Series, column or iterator of texts. In place of a
                text there can be a pair of texts, or ``{key: text}``.
            prompt_name: Name of the prompt to put before each text.
            prompt: The prompt itself; ``prompt_name`` is then ignored.
            batch_size: How many texts of the greatest length go through the model at once. It bounds memory:
                of shorter texts more may go, of no matter which length never more tokens than this times
                ``max_seq_length``.
            show_progress_bar: Whether progress is shown; by default if this module's logger is at INFO or
                DEBUG, there are more than ``batch_size`` texts, and somebody can see it: on a terminal, or in a
                notebook.
            output_value: ``"sentence_embedding"``; ``"token_embeddings"``: a list of tensors (tokens, dim), one
                a text (``token_offsets`` says where its tokens stand); None: a list of dicts with all features.
            precision: ``"float32"``, ``"int8"``, ``"uint8"``, ``"binary"`` or ``"ubinary"``; see
                ``quantize_embeddings``. The ranges for int8 and uint8 are those of ``calibrate``, or else of this
                call.
            convert_to_numpy: Whether sentence embeddings are returned as an array, rather than as a list of
                tensors.
            convert_to_tensor: Whether they are returned as one tensor instead.
            device: Where to compute. If it is another device than the model's, the model moves there. Of several
                devices, each gets a process, for this call; the model stays where it is.
            normalize_embeddings: Whether sentence embeddings are scaled to length 1.
            truncate_dim: Width to which sentence embeddings are cut, before they are scaled; by default the
                model's ``truncate_dim``.
            pool: What ``start_multi_process_pool`` returns: its processes compute, wherever ``device`` is. Tensors
                are then on the CPU, and with ``output_value=None`` each text's are padded like those of its chunk.
            chunk_size: How many texts a process is given at a time; by default a tenth of its share, up to 5000.
            out: An array (texts, dim) to put the embeddings into, a ``numpy.memmap`` say; it is also what is
                returned. With ``convert_to_tensor`` a tensor.
            truncation: What is made of texts that are longer than ``max_seq_length``: ``"warn"``: how many were cut
                is logged, as a warning the first time; ``"ignore"``; or ``"error"``.
            on_nonfinite: What is made of embeddings that are not finite, even if their texts are computed again,
                alone and in float32: ``"nan"``: the row is NaN, and a warning names it; or ``"raise"``.
            deterministic: Whether an embedding is bit for bit the same whatever else is in the call, on one machine
                with one number of threads. Each text is then computed alone, which takes longer.
            kwargs: What modules of this model ask for: ``task`` names the route of a Router.

        Returns:
            An array (texts, dim), float32 unless the model or ``precision`` says otherwise, in the order of
            the texts; (dim,) for a lone text. A model in training mode is left in evaluation mode, unless it is
            the processes of a pool that compute.

        Raises:
            TypeError: What was given is no text, or a row of it is missing; or no module takes an argument.
            ValueError: An option has a value that does not exist, or a combination without a meaning; or a text is
                too long, and ``truncation`` is ``"error"``.
            NonFiniteError: Embeddings are not finite, and ``on_nonfinite`` is ``"raise"`` or the precision has no
                NaN. It has all the others; a ``ValueError``.
            MemoryError: A text does not fit into the memory of the device, although it was tried alone; batches
                that do not fit are halved.
            PoolError: A process of a pool failed, or was lost.
        """
        items, is_single = as_items(sentences, self._kind_of_rows())
        limit = getattr(next(iter(self), None), "max_seq_length", None)
        cut = truncation if isinstance(truncation, CutTexts) else CutTexts(truncation, limit)
        nonfinite = on_nonfinite if isinstance(on_nonfinite, NonFiniteRows) else NonFiniteRows(on_nonfinite)
        found = Findings(cut, nonfinite)
        self._check_kwargs(kwargs)
        prompt = self._prompt_of(prompt_name, prompt)
        options = EncodeOptions(
            batch_size=batch_size,
            output_value=output_value,
            precision=precision or "float32",
            container=container_for(convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor),
            normalize_embeddings=normalize_embeddings,
            truncate_dim=self.truncate_dim if truncate_dim is None else truncate_dim,
            prompt=prompt,
            deterministic=deterministic,
        )
        if options.prompt is None and self.prompts and not self._has_hinted_at_prompts:
            self._hint_at_prompts()
        if is_single and isinstance(out, np.ndarray | Tensor) and out.ndim == 1:
            out = out[None]
        shown = show_progress_bar
        if shown is None:
            shown = len(items) > batch_size and _shows_progress()
        check_chunk_size(chunk_size)
        if pool is None and not isinstance(device, (list, tuple)):
            texts = apply_prompt(prompt, items)
            rows = self._encoded(texts, options, device, kwargs, found, out=out, shows_progress=shown)
        else:
            with self._lent(pool, device) as lent:
                request = Request(options, kwargs, SentenceTransformer.encode)
                rows = self._encoded_by(lent, request, items, chunk_size, found, out=out, shows_progress=shown)
        if cut is not truncation:
            self._tell_of(cut, len(items))
        if nonfinite is not on_nonfinite:
            nonfinite.judge(rows)
        return rows[0] if is_single else rows

    def encode_iter(
        self,
        sentences: Iterable[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        chunk_size: int = 4096,
        precision: Precision | None = "float32",
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        truncation: Truncation = "warn",
        on_nonfinite: OnNonFinite = "nan",
        deterministic: bool = False,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """The embeddings of a stream of texts, as a stream of arrays, in bounded memory.

        Args:
            sentences: Any number of texts, such as a file's lines; they are read as they are needed.
            prompt_name: As for ``encode``, like all that is not named here.
            prompt: See above.
            batch_size: See above.
            chunk_size: How many embeddings an array has; the last one may have fewer.
            precision: As for ``encode``; ``"int8"`` and ``"uint8"`` if the model is calibrated.
            convert_to_tensor: Whether the arrays are tensors.
            device: See above.
            normalize_embeddings: See above.
            truncate_dim: See above.
            truncation: See above.
            on_nonfinite: See above; an error has the rows of its array, as those before it have come already.
            deterministic: See above.
            kwargs: See above.

        Yields:
            Arrays (chunk_size, dim), in the order of the texts.

        Raises:
            TypeError: A row is missing or is no text; or no module takes an argument.
            ValueError: As for ``encode``; or the precision needs ranges, and the model is not calibrated.
            NonFiniteError: As for ``encode``.
        """
        if precision in CALIBRATED_PRECISIONS and self.calibration is None:
            raise ValueError(
                f"{precision} needs the range of each dimension over all embeddings: calibrate the model first; or "
                "stream float32, and call quantize_embeddings on each array with the same ranges="
            )
        if isinstance(device, (list, tuple)):
            raise ValueError(
                "device: expected one for a stream; of several, start a pool, and encode a chunk at a time"
            )
        chunks = chunks_of(sentences, chunk_size)
        # A class with an ``encode`` of its own may have been written for 2.7, which does not know what is newer.
        is_own = type(self).encode is SentenceTransformer.encode
        if is_own:
            self._check_kwargs(kwargs)
        limit = getattr(next(iter(self), None), "max_seq_length", None)

        def findings_from(start: int) -> Findings:
            return Findings(CutTexts(truncation, limit, start), NonFiniteRows(on_nonfinite, start))

        findings_from(0)  # which says if there are no such ways
        newer: dict[str, Any] = {
            **({} if truncate_dim is None else {"truncate_dim": truncate_dim}),
            **({} if truncation == "warn" else {"truncation": truncation}),
            **({} if on_nonfinite == "nan" else {"on_nonfinite": on_nonfinite}),
            **({"deterministic": True} if deterministic else {}),
            **kwargs,
        }

        def arrays() -> Iterator[Any]:
            start = 0
            for chunk in chunks:
                as_items(chunk, self._kind_of_rows(), start)
                found = findings_from(start)
                start += len(chunk)
                told = {"truncation": found.cut, "on_nonfinite": found.nonfinite} if is_own else {}
                rows = self.encode(
                    chunk,
                    prompt_name,
                    prompt,
                    batch_size,
                    show_progress_bar=False,
                    precision=precision,
                    convert_to_tensor=convert_to_tensor,
                    device=device,
                    normalize_embeddings=normalize_embeddings,
                    **{**newer, **told},
                )
                self._tell_of(found.cut, len(chunk))
                found.nonfinite.judge(rows)
                yield rows

        return arrays()

    @overload
    def encode_chunks(
        self,
        sentences: str,
        spans: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        convert_to_tensor: Literal[False] = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> NDArray[Any]: ...

    @overload
    def encode_chunks(
        self,
        sentences: Sequence[Any],
        spans: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        convert_to_tensor: Literal[False] = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> list[NDArray[Any]]: ...

    @overload
    def encode_chunks(
        self,
        sentences: str,
        spans: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        convert_to_tensor: Literal[True],
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Tensor: ...

    @overload
    def encode_chunks(
        self,
        sentences: Sequence[Any],
        spans: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        convert_to_tensor: Literal[True],
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> list[Tensor]: ...

    @overload
    def encode_chunks(self, sentences: str | Sequence[str], *args: Any, **kwargs: Any) -> Any: ...

    def encode_chunks(
        self,
        sentences: str | Sequence[str],
        spans: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        """The embeddings of parts of texts, each with its whole text around it (late chunking: Günther et al. 2024,
        https://arxiv.org/abs/2409.04701).

        A text goes through the transformer once, several as in ``encode``. The tokens of each part are pooled, and
        go through the rest of the model. Tokens that the tokenizer adds belong to no part: the part that is the
        whole text is not quite what ``encode`` gives, and a model that pools such a token (cls) is made for whole
        texts.

        Args:
            sentences: A text, or several.
            spans: The parts of the text: pairs (start, end) in characters. Of several texts, such pairs for each.
            prompt_name: Name of the prompt that stands before each text, and belongs to no part.
            prompt: The prompt itself; ``prompt_name`` is then ignored.
            convert_to_tensor: Whether a tensor is returned.
            normalize_embeddings: Whether embeddings are scaled to length 1, after they are cut.
            truncate_dim: Width to which they are cut; by default the model's.

        Returns:
            An array (parts, dim), in float32 unless the model says otherwise; of several texts, one for each. If
            a token of a text is not finite, even computed alone in float32, those of its parts are NaN, and a
            warning names the row.

        Raises:
            MemoryError: As for ``encode``.
            ValueError: A part lies outside of its text, or behind what the model reads, or has no token; there are
                not as many lists of parts as texts; or the model does not begin with a Transformer and a Pooling.
                Nothing is computed before that is known.

        Example:
            >>> model.encode_chunks("One. Two.", [(0, 4), (5, 9)]).shape
            (2, 384)
        """
        is_single = isinstance(sentences, str)
        texts: list[str] = [sentences] if isinstance(sentences, str) else [*sentences]
        parts: list[Sequence[Any]] = [spans] if is_single else [*spans]
        model, before = TokenModel([*self]), self._prompt_of(prompt_name, prompt) or ""
        whole = divided(model.transformer, texts, parts, before)
        made: list[Any] = []
        for group in groups_of(whole):
            for rows in self._chunks_of(model, whole[group], group.start):
                rows = truncate_embeddings(rows, self.truncate_dim if truncate_dim is None else truncate_dim)
                rows = normalize(rows) if normalize_embeddings else rows
                made.append(rows if convert_to_tensor else as_numpy(rows))
        return made[0] if is_single else made

    def _chunks_of(self, model: TokenModel, texts: Sequence[DividedText], start: int) -> list[Tensor]:
        """The embeddings of the parts of some texts, of which the first is the caller's row ``start``."""
        own = self._call(EncodeOptions(output_value="token_embeddings"), None, {})
        call = replace(own, model=model, entries={}, has_own_tokenize=False, has_own_forward=False)
        found = Findings(CutTexts("ignore", start=start), NonFiniteRows(start=start))
        whole = [text.text for text in texts]
        tokens = self._collected(call, whole, found, out=None, shows_progress=False)
        if len(found.nonfinite.rows):
            logger.warning("%s: the embeddings of their parts are NaN", found.nonfinite.told())
        rest = [*self][1:]
        with grad_mode_kept(), torch.no_grad():
            return [chunk_embeddings(rest, *pair) for pair in zip(tokens, texts, strict=True)]

    @_typed_like(encode)
    @also_named(inputs="sentences")
    def encode_query(self, sentences: Any, *args: Any, **kwargs: Any) -> Any:
        """``encode`` for queries: by the route ``query`` of a Router, and with the prompt of that name, if the
        model has one and none is given.
        """
        return self._encode_with_one_of(QUERY_PROMPT_NAMES, sentences, *args, **kwargs)

    @_typed_like(encode)
    @also_named(inputs="sentences")
    def encode_document(self, sentences: Any, *args: Any, **kwargs: Any) -> Any:
        """``encode`` for documents: by the route ``document`` of a Router, and with the first prompt of the name
        ``document``, ``passage`` or ``corpus``, if the model has one and none is given.
        """
        return self._encode_with_one_of(DOCUMENT_PROMPT_NAMES, sentences, *args, **kwargs)

    def _encode_with_one_of(
        self,
        names: Sequence[str],
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if prompt is None and prompt_name is None:
            prompt_name = first_named(self.prompts, names)
            # Without a prompt of its own it takes none: the default one is for texts of no known kind.
            prompt = "" if prompt_name is None else None
        task = names[0]
        if any(isinstance(module, Router) and module.knows(task) for module in self):
            kwargs.setdefault("task", task)
        return self.encode(sentences, prompt_name, prompt, *args, **kwargs)

    def forward(self, input: Features, **kwargs: Any) -> Features:  # noqa: A002  # as nn.Sequential names it
        """What the modules make of the Features of texts, each with those of the arguments that it takes."""
        features = input
        for link in links_of(self, self._entries):
            features = link(features, **kwargs)
        return features

    def tokenize(self, texts: Sequence[Any]) -> Features:
        """The Features of a batch of texts, as the first module makes them, on the CPU.

        Args:
            texts: Each a text, a pair of texts, or ``{key: text}``.
        """
        first = self._first_module()
        if not hasattr(first, "tokenize"):
            raise no_tokenizer(first, first)
        features: Features = first.tokenize(texts)
        return features

    @overload
    def count_tokens(self, sentences: str, prompt_name: str | None = None, prompt: str | None = None) -> int: ...

    @overload
    def count_tokens(
        self, sentences: Sequence[Any], prompt_name: str | None = None, prompt: str | None = None
    ) -> NDArray[np.int64]: ...

    @overload
    def count_tokens(self, sentences: Any, prompt_name: str | None = None, prompt: str | None = None) -> Any: ...

    def count_tokens(self, sentences: Any, prompt_name: str | None = None, prompt: str | None = None) -> Any:
        """How many tokens texts have before they are cut to ``max_seq_length``, as ``encode`` would read them.

        Args:
            sentences: As for ``encode``.
            prompt_name: Name of the prompt that stands before each text, and counts.
            prompt: The prompt itself; ``prompt_name`` is then ignored.

        Returns:
            An array (texts,) of whole numbers, tokens that the tokenizer adds included; for a lone text one number.

        Raises:
            ValueError: The first module has no tokens to count.

        Example:
            >>> model.count_tokens(["hello", "hello there"])
            array([3, 4])
        """
        items, is_single = as_items(sentences, self._kind_of_rows())
        first = self._first_module()
        if not hasattr(first, "count_tokens"):
            raise ValueError(f"tokens: expected a first module that counts them, found {type(first).__name__}")
        before = self._prompt_of(prompt_name, prompt)
        counts = first.count_tokens(apply_prompt(before, items))
        return int(counts[0]) if is_single else counts

    @overload
    def token_offsets(
        self, sentences: str, prompt_name: str | None = None, prompt: str | None = None
    ) -> NDArray[np.int64]: ...

    @overload
    def token_offsets(
        self, sentences: Sequence[Any], prompt_name: str | None = None, prompt: str | None = None
    ) -> list[NDArray[np.int64]]: ...

    @overload
    def token_offsets(self, sentences: Any, prompt_name: str | None = None, prompt: str | None = None) -> Any: ...

    def token_offsets(self, sentences: Any, prompt_name: str | None = None, prompt: str | None = None) -> Any:
        """Where in its text each token stands, for each row of ``encode(output_value="token_embeddings")``.

        Args:
            sentences: A text, or several.
            prompt_name: Name of the prompt that stands before each text.
            prompt: The prompt itself; ``prompt_name`` is then ignored.

        Returns:
            For each text an array (tokens, 2) of whole numbers: where a token begins and ends, in characters of the
            text as it was given; (0, 0) for those of the prompt, and those that the tokenizer adds. For a lone text
            one array.

        Raises:
            TypeError: A row is no text but a pair, say.
            ValueError: The first module, or its tokenizer, does not know where tokens stand.

        Example:
            >>> model.token_offsets("hello there").tolist()
            [[0, 0], [0, 5], [6, 11], [0, 0]]
        """
        items, is_single = as_items(sentences, self._kind_of_rows())
        first = self._first_module()
        if not hasattr(first, "token_offsets"):
            raise ValueError(
                f"tokens: expected a first module that knows their places, found {type(first).__name__}"
            )
        for row, item in enumerate(items):
            if not isinstance(item, str):
                raise TypeError(f"token_offsets: expected a text in row {row}, found {type(item).__name__}")
        before = self._prompt_of(prompt_name, prompt) or ""
        offsets = [np.maximum(first.token_offsets(before + text) - len(before), 0) for text in items]
        return offsets[0] if is_single else offsets

    def _encoded(
        self,
        texts: Sequence[Any],
        options: EncodeOptions,
        device: str | torch.device | None,
        kwargs: Mapping[str, Any],
        found: Findings,
        *,
        out: Output | None,
        shows_progress: bool,
    ) -> Rows:
        call = self._call(options, device, kwargs)
        return self._collected(call, texts, found, out=out, shows_progress=shows_progress)

    def _call(
        self, options: EncodeOptions, device: str | torch.device | None, kwargs: Mapping[str, Any]
    ) -> EncodeCall:
        """A call of this model, which is then ready on the device."""
        return EncodeCall(
            model=self,
            entries=self._entries,
            has_own_tokenize="tokenize" in vars(self) or type(self).tokenize is not _TOKENIZE,
            has_own_forward=type(self).forward is not _FORWARD,
            acceleration=self._acceleration,
            budget=self._token_budget,
            sharing=self._sharing,
            options=options,
            device=self._ready_on(device),
            kwargs=kwargs,
        )

    def _collected(
        self, call: EncodeCall, texts: Sequence[Any], found: Findings, *, out: Output | None, shows_progress: bool
    ) -> Rows:
        """What a call makes of texts."""

        def collector_of(distinct: DistinctTexts) -> Collector:
            return self._collector(distinct, call.options, call.device, found, out)

        return call.rows(texts, collector_of, found, shows_progress=shows_progress)

    def _collector(
        self,
        texts: DistinctTexts,
        options: EncodeOptions,
        device: torch.device,
        found: Findings,
        out: Output | None,
    ) -> Collector:
        """What takes the results, with what is known of the model's embeddings."""
        wants_ranges = options.precision in CALIBRATED_PRECISIONS and options.output_value == "sentence_embedding"
        return collector_for(
            texts,
            options,
            dimension=None if texts.count else self._dimension_cut_to(options.truncate_dim),
            device=device,
            out=out,
            nonfinite=found.nonfinite,
            ranges=self._ranges_for(options) if wants_ranges else None,
        )

    def _ranges_for(self, options: EncodeOptions) -> NDArray[Any] | None:
        """The calibrated ranges of embeddings as they are asked for, if the model is calibrated."""
        if self.calibration is None:
            return None
        dimension = self._dimension_cut_to(options.truncate_dim)
        if dimension is None:  # no module knows it: somebody's own
            whole = self.calibration.ranges.shape[1]
            dimension = min(whole, options.truncate_dim or whole)
        return self.calibration.ranges_for(dimension, normalized=options.normalize_embeddings)

    def _kind_of_rows(self) -> Kind:
        """What the first module takes; of those that are somebody else's nothing is known."""
        first = next(iter(self), None)
        if isinstance(first, (StaticEmbedding, WordEmbeddings, BoW)):
            return "texts"
        return "texts and pairs" if isinstance(first, Transformer) else "anything"

    def _prompt_of(self, prompt_name: str | None, prompt: str | None) -> str | None:
        """The prompt that is meant by the arguments of a call."""
        return resolve_prompt(
            self.prompts, prompt=prompt, prompt_name=prompt_name, default_prompt_name=self.default_prompt_name
        )

    def _hint_at_prompts(self) -> None:
        """Log, once, which methods put prompts before texts, if the model has some."""
        names = [name for name in (*QUERY_PROMPT_NAMES, *DOCUMENT_PROMPT_NAMES) if name in self.prompts]
        if names:
            self._has_hinted_at_prompts = True
            logger.warning(
                "texts are encoded without a prompt, and the model has some for %s: encode_query and "
                "encode_document put them before texts; prompt='' says that none is meant",
                " and ".join(names),
            )

    def _tell_of(self, cut: CutTexts, count: int) -> None:
        """Log how many texts were cut: a warning the first time, as servers call for ever."""
        if cut.truncation == "warn" and cut.count:
            logger.log(logging.DEBUG if self._has_told_of_cuts else logging.WARNING, "%s", cut.told(count))
            self._has_told_of_cuts = True

    def _lent(self, pool: Pool | None, devices: Any) -> AbstractContextManager[Pool]:
        """The pool that is given, or one for a single call."""
        if pool is None:
            return EncodePool(self, devices)
        if not hasattr(pool, "run"):
            raise TypeError(f"pool: expected what start_multi_process_pool returns, found {type(pool).__name__}")
        if pool.model is not self:
            raise ValueError("pool: expected one that this model has started, found one with another model")
        return nullcontext(pool)

    def _encoded_by(
        self,
        pool: Pool,
        request: Request,
        texts: Sequence[Any],
        chunk_size: int | None,
        found: Findings,
        *,
        out: Output | None,
        shows_progress: bool,
    ) -> Rows:
        every = DistinctTexts.every(len(texts))
        collector = self._collector(every, request.options, torch.device("cpu"), found, out)
        with progress_bar(len(texts), unit="sentence", shown=shows_progress, description="Encoding") as progress:
            pool.run(request, texts, collector, progress, cut=found.cut, chunk_size=chunk_size)
        return collector.finish()

    def _check_kwargs(self, kwargs: Mapping[str, Any]) -> None:
        """Raise a TypeError for arguments that no module takes."""
        if kwargs:
            accepted = frozenset[str]().union(
                *(link.accepted_on_any_route() for link in links_of(self, self._entries))
            )
            unknown = sorted(kwargs.keys() - accepted)
            if unknown:
                raise TypeError(
                    f"encode: no such argument: {unknown}; the modules of this model take {sorted(accepted)}"
                )

    def _ready_on(self, device: str | torch.device | None) -> torch.device:
        """The device to compute on, with the model there and in evaluation mode; changes only what must change."""
        compute_alone_if_forked()
        if is_training(self):
            self.eval()
        return self._placement.ready_on(self, device)

    def calibrate(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        truncate_dim: int | None = None,
        **arguments: Any,
    ) -> Calibration:
        """Find the range of each dimension for int8 and uint8, once for all calls of ``encode``.

        With it, one text can be encoded in these precisions, and what is encoded in several calls is comparable. It
        is saved with the model.

        Args:
            sentences: Texts like those to come, hundreds of them or more.
            prompt_name: As for ``encode``, like all that follows.
            prompt: See above.
            batch_size: See above.
            truncate_dim: See above. Ranges are known of embeddings of this width; of narrower ones, too, if they
                are not scaled to length 1 after they are cut.
            arguments: ``pool``, ``device`` and what else says how embeddings are computed; what they become after
                that is not asked: they are calibrated as they are, and for those scaled to length 1.

        Returns:
            The calibration, which is also ``model.calibration``; None there undoes it.

        Raises:
            TypeError: An argument says what becomes of the embeddings.
            ValueError: There are fewer than two texts, or embeddings that are not finite.

        Example:
            >>> calibration = model.calibrate(["a text", "another", "what else there is"])
            >>> model.encode("one text", precision="int8").dtype
            dtype('int8')
        """
        unfit = sorted(_NOT_CALIBRATED & arguments.keys())
        if unfit:
            raise TypeError(f"calibrate: expected no {', '.join(unfit)}: ranges are those of plain embeddings")
        embeddings = self.encode(sentences, prompt_name, prompt, batch_size, truncate_dim=truncate_dim, **arguments)
        self.calibration = Calibration.of(np.atleast_2d(embeddings))
        return self.calibration

    # ── Several processes ─────────────────────────────────────────────────────────────────────────────────

    def start_multi_process_pool(self, target_devices: Sequence[str | torch.device] | None = None) -> EncodePool:
        """Start processes that encode with this model as it is now; see ``EncodePool``, which also ends them itself
        if it is used as a context.

        Args:
            target_devices: Where they compute, a device each; by default all GPUs of this machine, or else up to
                four shares of the processor.

        Returns:
            The pool, for ``encode(pool=…)``.
        """
        return EncodePool(self, target_devices)

    def encode_multi_process(
        self,
        sentences: Any,
        pool: Pool,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        normalize_embeddings: bool = False,
        **kwargs: Any,
    ) -> Any:
        """``encode(sentences, pool=pool)``, in the older order of its arguments; all others are taken by name.

        Of a class whose own ``encode`` has no argument ``pool``, the workers call that ``encode``, with those
        arguments that it takes.
        """
        encode: Callable[..., Any] = self.encode
        if not takes_pool(encode):
            encode = partial(SentenceTransformer.encode, self)
            prompts = {"prompt_name": prompt_name, "prompt": prompt}
            own = OwnEncode({name: value for name, value in prompts.items() if value is not None})
            pool = PoolOfOwnEncode(pool, own) if hasattr(pool, "run") else pool
        return encode(
            sentences,
            prompt_name,
            prompt,
            batch_size,
            pool=pool,
            chunk_size=chunk_size,
            normalize_embeddings=normalize_embeddings,
            **kwargs,
        )

    @staticmethod
    def stop_multi_process_pool(pool: Pool) -> None:
        """End the processes of a pool, whatever they are doing."""
        pool.stop()

    # ── Comparing vectors ─────────────────────────────────────────────────────────────────────────────────

    @property
    def similarity_fn_name(self) -> str:
        """What ``similarity`` computes: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"manhattan"``.

        None sets it to the first.
        """
        return self._similarity_fn_name or SimilarityFunction.COSINE.value

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str | SimilarityFunction | None) -> None:
        chosen = SimilarityFunction.COSINE if name is None else name
        self._similarity_fn_name = SimilarityFunction.parse(chosen).value

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """The similarity of every pair: (n, dim) and (m, dim) → (n, m); distances are negative."""
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Tensor:
        """The similarity row by row: (n, dim) twice → (n,); distances are negative."""
        return SimilarityFunction.to_similarity_pairwise_fn(self.similarity_fn_name)(embeddings1, embeddings2)

    # ── What the model is ─────────────────────────────────────────────────────────────────────────────────

    @property
    def device(self) -> torch.device:
        """The device that the model is on; the CPU if it has neither parameters nor buffers."""
        return module_device(self)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As of any module; a model that was unloaded then stays where it is brought."""
        self._placement.forget()
        is_device = len(args) == 1 and not kwargs and isinstance(args[0], (str, torch.device))
        if is_device and self._is_seen_on(torch.device(args[0])):
            return self
        return super().to(*args, **kwargs)

    def cuda(self, device: int | torch.device | None = None) -> Self:
        """As ``to`` a GPU."""
        self._placement.forget()
        return super().cuda(device)

    def cpu(self) -> Self:
        """As ``to`` the CPU."""
        self._placement.forget()
        return self if self._is_seen_on(torch.device("cpu")) else super().cpu()

    def _is_seen_on(self, device: torch.device) -> bool:
        """Whether what is deferred would be loaded for nothing: all is on a device already."""
        return is_deferred_inside(self) and is_all_on(self, device)

    @property
    def _target_device(self) -> torch.device:
        """The older name of ``device``; setting it moves the model."""
        return self.device

    @_target_device.setter
    def _target_device(self, device: str | torch.device) -> None:
        self.to(torch.device(device))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the first module."""
        return self._first_module().tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._first_module().tokenizer = tokenizer

    @property
    def max_seq_length(self) -> int | None:
        """The longest input in tokens; what is longer is cut. See ``get_max_seq_length``."""
        limit: int | None = self._first_module().max_seq_length
        return limit

    @max_seq_length.setter
    def max_seq_length(self, limit: int | None) -> None:
        self._first_module().max_seq_length = limit

    def get_max_seq_length(self) -> int | None:
        """The longest input in tokens; None if the first module has no limit, infinity for a StaticEmbedding."""
        return getattr(self._first_module(), "max_seq_length", None)

    def get_sentence_embedding_dimension(self) -> int | None:
        """Width of the embeddings that ``encode`` returns; None if no module knows it."""
        return self._dimension_cut_to(self.truncate_dim)

    def get_embedding_dimension(self) -> int | None:
        """The newer name of ``get_sentence_embedding_dimension``."""
        return self.get_sentence_embedding_dimension()

    def _dimension_cut_to(self, truncate_dim: int | None) -> int | None:
        for module in reversed(self):
            of_module: Any = getattr(module, "get_sentence_embedding_dimension", None)
            if callable(of_module):
                width: int | None = of_module()
                break
        else:
            width = None
        if truncate_dim is None or width is None:
            return truncate_dim if width is None else width
        return len(range(width)[:truncate_dim])

    def get_sentence_features(self, *features: Any) -> Any:
        """What the first module's ``get_sentence_features`` says."""
        return self._first_module().get_sentence_features(*features)

    def get_backend(self) -> str:
        """What computes: ``"torch"``."""
        return "torch"

    def _first_module(self) -> Any:
        """The module that tokenises."""
        if len(self) == 0:
            raise ValueError("this SentenceTransformer has no modules: give it the name of a model, or modules=")
        return self[0]

    def _last_module(self) -> nn.Module:
        """The module that has the last word."""
        last: nn.Module = self[len(self) - 1]
        return last

    def _text_length(self, item: Any) -> int:
        """How many characters an item has, over all its texts."""
        return text_length(item)

    def extra_repr(self) -> str:
        """What one wants to know of the model, above its modules."""
        return ", ".join(
            [
                f"dimension={self.get_sentence_embedding_dimension()}",
                f"max_seq_length={getattr(next(iter(self), None), 'max_seq_length', None)}",
                f"similarity={self.similarity_fn_name!r}",
                f"device={str(self.device)!r}",
                *([f"dtype={self._acceleration.dtype!r}"] if self._acceleration.dtype != "float32" else []),
                *([f"prompts={list(self.prompts)}"] if self.prompts else []),
            ]
        )

    def _chain(self) -> dict[str, nn.Module]:
        """Name → module, in their order; one that stands in several places is there each time."""
        # ``named_children`` names a module once.
        return dict(zip(self._modules, self, strict=True))

    def _architecture(self) -> str:
        """The modules, without what a run of this model says about itself."""
        chain = nn.Sequential(OrderedDict(self._chain()))
        return repr(chain).replace("Sequential", type(self).__name__, 1)

    def __getitem__(self, idx: Any) -> Any:
        """A module by its place, or for a slice a model of some of the modules, with the same settings.

        Ranges that ``calibrate`` found are of the embeddings of all modules: a slice with fewer has none.
        """
        if not isinstance(idx, slice):
            return super().__getitem__(idx)
        part = type(self).__new__(type(self))
        nn.Module.__init__(part)
        own = {name: value for name, value in self.__dict__.items() if name not in part.__dict__}
        its_own = {
            "_prompts": dict(self.prompts),
            "model_card_data": copy.copy(self.model_card_data),
            "_placement": Placement(),
            "_own_batcher": Transient(),
        }
        part.__dict__.update({**own, **its_own, "training": self.training})
        for name, module in list(self._modules.items())[idx]:
            part.add_module(name, module)
        if len(part) < len(self):
            part.calibration = None
        return part

    # ── Many callers ──────────────────────────────────────────────────────────────────────────────────────

    def batcher(
        self, *, max_wait_ms: float = 2.0, max_batch_tokens: int = 8192, max_waiting: int = 8192
    ) -> Batcher:
        """What serves many callers of ``encode``, threads or tasks, together; arguments as for ``Batcher``."""
        return Batcher(self, max_wait_ms=max_wait_ms, max_batch_tokens=max_batch_tokens, max_waiting=max_waiting)

    async def aencode(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        **arguments: Any,
    ) -> Any:
        """``encode`` for the tasks of an event loop: calls that wait at the same time are computed together.

        Args:
            sentences: As for ``encode``, like all that follows.
            prompt_name: See above.
            prompt: See above.
            batch_size: See above.
            arguments: Others of ``encode``, but for ``device``, ``pool``, ``out`` and ``show_progress_bar``.

        Example:
            >>> embedding = await model.aencode("where is the cat?")  # doctest: +SKIP
        """
        own = self._own_batcher.get(make=self.batcher, holds=lambda kept: kept.model is self and not kept.is_closed)
        return await own.aencode(sentences, prompt_name, prompt, batch_size, **arguments)

    # ── Memory ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def max_batch_tokens(self) -> int | None:
        """The most tokens that a batch may have as it is padded, where memory is short; None for no such limit.

        Larger batches are split. A text that has more is a ``MemoryError``. What did not fit into the memory of a
        device is split without it, and remembered: this is for devices that do not say so, a CPU above all.
        """
        return self._token_budget.limit

    @max_batch_tokens.setter
    def max_batch_tokens(self, limit: int | None) -> None:
        if limit is not None and (not is_whole(limit) or limit < 1):
            raise ValueError(f"max_batch_tokens: expected 1 or more, or None, found {limit!r}")
        self._token_budget = TokenBudget(limit)

    def unload(self) -> None:
        """Give back the memory of a GPU, and what else this model keeps to be quick.

        Its weights move to main memory; the next call of ``encode`` takes them back to where they were, unless the
        model was moved meanwhile. Calls that compute on a GPU at that moment must have ended.
        """
        device = self.device
        self._placement.unload(self)
        self._acceleration.forget()
        give_back_memory(device)

    # ── Settings ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def prompts(self) -> dict[str, str]:
        """Name → text that can be put before texts; None sets it to none."""
        return self._prompts

    @prompts.setter
    def prompts(self, prompts: dict[str, str] | None) -> None:
        self._prompts: dict[str, str] = {} if prompts is None else prompts

    @property
    def truncate_dim(self) -> int | None:
        """Width to which ``encode`` cuts embeddings; None leaves them whole."""
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, truncate_dim: int | None) -> None:
        self._truncate_dim = whole_or_none(truncate_dim, "truncate_dim")

    @contextmanager
    def truncate_sentence_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within this context ``encode`` cuts embeddings to so many values; None leaves them whole.

        Example:
            >>> with model.truncate_sentence_embeddings(16):
            ...     model.encode("hello there").shape
            (16,)
        """
        before = self.truncate_dim
        self.truncate_dim = truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Say whether the tokens of a prompt are pooled, to the first Pooling if there is one."""
        for module in self:
            if isinstance(module, Pooling):
                module.include_prompt = include_prompt
                break

    # ── Training and judging ──────────────────────────────────────────────────────────────────────────────

    def smart_batching_collate(self, batch: Sequence[InputExample]) -> tuple[list[Features], Tensor]:
        """Examples → the input of a loss.

        Args:
            batch: Examples with the same number of texts.

        Returns:
            The Features of the first texts of all examples, of the second ones, and so on; and the labels.

        Raises:
            ValueError: An example has more texts than another.
        """
        counts = {len(example.texts or ()) for example in batch}
        if len(counts) > 1:
            raise ValueError(f"expected examples with the same number of texts, found {sorted(counts)}")
        columns = zip(*(example.texts or () for example in batch), strict=True)
        labels = as_tensor([example.label for example in batch])
        return [self.tokenize(list(column)) for column in columns], labels

    def fit(
        self,
        train_objectives: Iterable[tuple[Any, nn.Module]],
        evaluator: Callable[..., Any] | None = None,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        scheduler: str = "WarmupLinear",
        warmup_steps: int = 10000,
        optimizer_class: type[Optimizer] = torch.optim.AdamW,
        optimizer_params: Mapping[str, Any] = MappingProxyType({"lr": 2e-5}),
        weight_decay: float = 0.01,
        evaluation_steps: int = 0,
        output_path: str | Path | None = None,
        save_best_model: bool = True,
        max_grad_norm: float | None = 1,
        use_amp: bool = False,
        callback: Callable[[float, int, int], Any] | None = None,
        show_progress_bar: bool = True,
        checkpoint_path: str | Path | None = None,
        checkpoint_save_steps: int | None = 500,
        checkpoint_save_total_limit: int | None = 0,
        *,
        resume_from_checkpoint: bool | str | Path = False,
        gradient_accumulation_steps: int = 1,
        amp_dtype: AmpDtype | None = None,
        log_steps: int = 0,
        on_log: Callable[[LoggedSteps], Any] | None = None,
        early_stopping_patience: int | None = None,
        seed: int | None = None,
        gradient_checkpointing: bool = False,
        effective_batch_size: int | None = None,
    ) -> TrainingRecord:
        """Train the model: a step of each objective in turn.

        Under ``torchrun`` the processes share the data, batch by batch, and average their gradients; the first one
        evaluates and writes.

        Args:
            train_objectives: Pairs of a loader and a loss. A loader is a ``DataLoader``, or anything else with a
                length that can be iterated again and again, and yields lists of ``InputExample``, columns by name,
                rows by name, or pairs (Features of each column, labels). A data set of ``datasets`` is taken in
                shuffled batches of 32.
            evaluator: What judges the model, at the end of every epoch: returns a dict, in which its
                ``primary_metric`` counts, or a number; see ``sentence_embedder.evaluation``.
            epochs: How often the data is gone through.
            steps_per_epoch: How many steps an epoch has; by default as many as take all the data of the smallest
                objective. Longer data goes on in the next epoch where it was left.
            scheduler: How the learning rate goes, in any case: ``"constantlr"``, ``"warmupconstant"``,
                ``"warmuplinear"``, ``"warmupcosine"`` or ``"warmupcosinewithhardrestarts"``.
            warmup_steps: During how many steps it rises.
            optimizer_class: The optimizer; each objective has its own.
            optimizer_params: Its arguments.
            weight_decay: The weight decay of all weights but those with ``bias`` or ``LayerNorm.weight`` in their
                names, as in sentence-transformers: norms of other names decay, too.
            evaluation_steps: After how many steps within an epoch the model is judged, too; 0 for never.
            output_path: The folder for the model, and in ``eval`` for what the evaluator writes. None for nowhere.
            save_best_model: Whether the model is saved whenever its score is the best yet; else, and without an
                evaluator, it is saved at the end.
            max_grad_norm: To which length longer gradients are shortened; None for none.
            use_amp: Whether products are computed in ``amp_dtype``.
            callback: Called with the score, the epoch and the steps within it (-1 at its end) after each judgement.
            show_progress_bar: Whether a progress bar is shown.
            checkpoint_path: The folder for checkpoints; each is a folder in it, named after its step: a model that
                can be loaded, and in ``training_state`` what goes on from there.
            checkpoint_save_steps: After how many steps one is written, 0 and None for never; the last one comes at
                the end.
            checkpoint_save_total_limit: How many are kept, the newest ones; 0 and None for all. Only folders that
                this training has made are removed; a checkpoint of an earlier one is replaced if it has the same
                step.
            resume_from_checkpoint: A checkpoint from which training goes on; True for the newest in
                ``checkpoint_path``, and for a start from the beginning if there is none. On a CPU the weights come
                out as if nothing had happened, bit for bit, if the order of the data depends on random numbers at
                the start of an iteration alone. Learning rates and the like are those of the checkpoint.
            gradient_accumulation_steps: Of how many batches a step takes the mean gradient.
            amp_dtype: ``"bfloat16"`` or ``"float16"``, which implies ``use_amp``; by default bfloat16 where the
                device has it.
            log_steps: After how many steps the losses are logged; 0 for once an epoch.
            on_log: Called with what is logged.
            early_stopping_patience: After how many judgements without a better score training ends.
            seed: Where random numbers start from, those that shuffle data included, unless a loader has a generator
                of its own.
            gradient_checkpointing: Whether transformers compute their activations a second time instead of keeping
                them: less memory, a third more time.
            effective_batch_size: How many rows the loss sees at a time, a multiple of the batch size of the
                loaders: batches are joined, in the memory of one of them (GradCache). In-batch negatives then come
                from all of them: texts may come twice in what is joined, which no loader of small batches knows.
                In each process, if there are several.

        Returns:
            What came of it: losses, scores, the best of them, and the folders.

        Raises:
            ValueError: An argument makes no sense, or a loader yields what is no batch.
            TrainingError: A loss or a gradient is not finite: the weights are those before the step of this
                objective.
            CheckpointError: A checkpoint could not be written or read.

        Example:
            >>> from sentence_embedder import InputExample, losses
            >>> examples = [InputExample(texts=["a cat", "a kitten"], label=0.9)]
            >>> loader = torch.utils.data.DataLoader(examples, batch_size=32, shuffle=True)
            >>> record = model.fit([(loader, losses.CosineSimilarityLoss(model))], warmup_steps=100)
        """
        # With all losses: who only encodes need not wait for them.
        from sentence_embedder.training.loop import train
        from sentence_embedder.training.plan import TrainingPlan
        from sentence_embedder.training.training_facts import facts_of
        from sentence_embedder.training.training_record import TrainingRecord

        plan = TrainingPlan(
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            scheduler=scheduler,
            warmup_steps=warmup_steps,
            optimizer_class=optimizer_class,
            optimizer_params=dict(optimizer_params),
            weight_decay=weight_decay,
            evaluation_steps=evaluation_steps,
            output_path=None if output_path is None else Path(output_path),
            save_best_model=save_best_model,
            max_grad_norm=max_grad_norm,
            use_amp=use_amp,
            show_progress_bar=show_progress_bar,
            checkpoint_path=None if checkpoint_path is None else Path(checkpoint_path),
            checkpoint_save_steps=checkpoint_save_steps or 0,
            checkpoint_save_total_limit=checkpoint_save_total_limit or 0,
            resume_from_checkpoint=(
                Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, str) else resume_from_checkpoint
            ),
            gradient_accumulation_steps=gradient_accumulation_steps,
            amp_dtype=amp_dtype,
            log_steps=log_steps,
            early_stopping_patience=early_stopping_patience,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            effective_batch_size=effective_batch_size,
        )
        objectives = list(train_objectives)
        before = self._model_card_text, self._training_facts, self._training_record
        facts, record = facts_of(objectives, plan, evaluator), TrainingRecord()
        # Now: the best model is saved before the training ends.
        self._model_card_text, self._training_facts, self._training_record = None, facts, record
        try:
            return train(
                self, objectives, plan, evaluator=evaluator, callback=callback, on_log=on_log, record=record
            )
        except BaseException:
            if record.steps == 0:
                self._model_card_text, self._training_facts, self._training_record = before
            raise

    def evaluate(self, evaluator: Callable[..., _Result], output_path: str | None = None) -> _Result:
        """What an evaluator says of the model.

        Args:
            evaluator: Called with the model and the path.
            output_path: Folder for what the evaluator writes; made if need be.
        """
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    # ── Files ─────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def load(input_path: str) -> SentenceTransformer:
        """The model that a folder holds."""
        return SentenceTransformer(input_path)

    def save(
        self,
        path: str | Path | None,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
        *,
        replace_model_card: bool = False,
    ) -> None:
        """Write the model into a folder that sentence-transformers 2.7 and later read.

        The folder holds what it held or the whole model, also after a crash or on a full disk; what is in it beside
        a model stays.

        Args:
            path: The folder, made if need be; for None nothing is saved.
            model_name: The name of the model in its card.
            create_model_card: Whether a README.md is written: the one that the model was loaded with, or
                else a new one.
            train_datasets: Names of data sets for a new card.
            safe_serialization: Whether weights are written as safetensors. If not, they are pickles, the
                only form that sentence-transformers 2.7 reads of modules other than the Transformer.
            replace_model_card: Whether a new card is written though the model was loaded with one.
        """
        if path is None:
            return
        folder = Path(path)
        card = self._model_card_text
        if create_model_card and (replace_model_card or not card):
            card = self._new_card(model_name or folder.name, train_datasets or ())
        model = SavedModel(
            modules=self._chain(),
            config=self._config_to_save(),
            entries=self._entries,
            card=card if create_model_card else None,
        )
        saved_model.save(folder, model, safe_serialization=safe_serialization)

    def save_pretrained(
        self,
        path: str | Path | None,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
        *,
        replace_model_card: bool = False,
    ) -> None:
        """The newer name of ``save``."""
        self.save(
            path,
            model_name,
            create_model_card,
            train_datasets,
            safe_serialization,
            replace_model_card=replace_model_card,
        )

    def push_to_hub(
        self,
        repo_id: str,
        token: bool | str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = "Add new SentenceTransformer model.",
        local_model_path: str | Path | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: list[str] | None = None,
        *,
        revision: str | None = None,
        create_pr: bool = False,
        use_auth_token: bool | str | None = None,
    ) -> str:
        """Put the model on the Hugging Face Hub, in one commit.

        Args:
            repo_id: The name of the repository, made if need be; without an owner it is yours.
            token: A token that may write; by default the one that is stored on this machine.
            private: Whether a new repository is private.
            safe_serialization: As for ``save``.
            commit_message: The message of the commit.
            local_model_path: A folder that is put there instead of the model.
            exist_ok: Whether the repository may exist. Files of an earlier model in it that this one does not have
                are deleted; all others stay.
            replace_model_card: Whether the README.md that is there is replaced, too.
            train_datasets: As for ``save``.
            revision: The branch, made if need be; by default the main branch.
            create_pr: Whether a pull request is opened instead of changing the repository, which may exist then.
            use_auth_token: The older name of ``token``.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            HubError: The repository exists, though ``exist_ok`` is False; or the Hub did not take the model, and
                the repository is as it was. An ``OSError``.

        Example:
            >>> model.push_to_hub("me/my-model", private=True)  # doctest: +SKIP
            'https://huggingface.co/me/my-model/commit/0c7d…'
        """
        target = hub.ModelTarget(
            name=repo_id,
            token=_token(token, use_auth_token),
            private=private,
            exist_ok=exist_ok,
            revision=revision,
            create_pr=create_pr,
            replaces_card=replace_model_card,
            message=commit_message or f"Add new {type(self).__name__} model.",
            description=f"A model of sentence_embedder {__version__}:\n\n```\n{self._architecture()}\n```\n",
        ).qualified()
        with TemporaryDirectory() as made:
            folder = Path(local_model_path or made)
            if local_model_path is None:
                self.save(
                    folder,
                    model_name=target.name,
                    train_datasets=train_datasets,
                    safe_serialization=safe_serialization,
                )
            return hub.upload(folder, target, saved_model.is_model_file)

    def save_to_hub(
        self, repo_id: str | None = None, organization: str | None = None, *args: Any, **kwargs: Any
    ) -> str:
        """The older name of ``push_to_hub``.

        Args:
            repo_id: As for ``push_to_hub``.
            organization: The owner, if ``repo_id`` has none.
            args: As for ``push_to_hub``.
            kwargs: As for ``push_to_hub``; ``repo_name`` is an older name of ``repo_id``.
        """
        warnings.warn("save_to_hub is the older name of push_to_hub", FutureWarning, stacklevel=2)
        repo_id = kwargs.pop("repo_name", repo_id)
        if not repo_id:
            raise TypeError("save_to_hub: expected repo_id, found none")
        owner = repo_id.rpartition("/")[0]
        if organization and owner not in ("", organization):
            raise ValueError(f"organization: expected the owner in repo_id, {owner!r}, found {organization!r}")
        name = f"{organization}/{repo_id}" if organization and not owner else repo_id
        return self.push_to_hub(name, *args, **kwargs)

    def _config_to_save(self) -> ModelConfig:
        return ModelConfig(
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
            similarity_fn_name=self._similarity_fn_name or self._model_config.similarity_fn_name,
            truncate_dim=self.truncate_dim,
            model_type=self._model_config.model_type,
            calibration=None if self.calibration is None else self.calibration.to_dict(),
            versions={"sentence_transformers": _API_LEVEL, **_versions()},
            extra=self._model_config.extra,
        )

    def _new_card(self, name: str, datasets: Sequence[str]) -> str:
        known = CardMetadata.of(self._loaded_card)
        data, training, record = self.model_card_data, self._training_facts, self._training_record
        return render(
            CardFacts(
                name=data.model_id or name,
                title=data.model_name,
                architecture=self._architecture(),
                dimension=self.get_sentence_embedding_dimension(),
                max_seq_length=self.get_max_seq_length(),
                similarity=self.similarity_fn_name,
                prompts=self.prompts,
                tells_queries_apart=self._tells_queries_apart(),
                task_name=data.task_name,
                language=[*(data.language or known.language)],
                license=data.license or known.license,
                tags=[*(data.tags or ())],
                base_model=data.base_model,
                base_model_revision=data.base_model_revision,
                datasets=[*data.train_datasets, *({"name": name, "id": name} for name in datasets)],
                eval_datasets=data.eval_datasets,
                training={**training, **(record.to_dict() if record else {})},
                versions=_versions(),
                citations=training.get("citations", ()),
            )
        )

    def _tells_queries_apart(self) -> bool:
        names = {*QUERY_PROMPT_NAMES, *DOCUMENT_PROMPT_NAMES}
        return bool(names & self.prompts.keys()) or any(isinstance(module, Router) for module in self)


def _named(modules: Iterable[nn.Module] | None) -> dict[str, nn.Module]:
    if isinstance(modules, Mapping):
        return dict(modules)
    return {str(place): module for place, module in enumerate(modules or ())}


def _token(token: bool | str | None, use_auth_token: bool | str | None) -> bool | str | None:
    if use_auth_token is None:
        return token
    if token is not None:
        raise ValueError("token and use_auth_token were both given: give token alone")
    warnings.warn("use_auth_token is the older name of token", FutureWarning, stacklevel=3)
    return use_auth_token


def _load(source: hub.ModelSource, arguments: LoadArguments) -> tuple[Path, SavedModel]:
    logger.info("loading %s", source.name)
    folder = hub.locate(source, hub.Gaps(saved_model.incomplete_folders, saved_model.undecided_files))
    return folder, saved_model.load(folder, arguments)


def _versions() -> dict[str, str]:
    """Package → version, of what a model is saved by."""
    return {
        "transformers": version("transformers"),
        "pytorch": version("torch"),
        "sentence_embedder": __version__,
    }


def _shows_progress() -> bool:
    return logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG) and is_seen()


_TOKENIZE, _FORWARD = SentenceTransformer.tokenize, SentenceTransformer.forward
"""As they are written here: programs put others into the class."""
