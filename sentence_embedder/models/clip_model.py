"""CLIPModel: texts and images in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentence_embedder.argument_names import also_named
from sentence_embedder.features import Features, Places, TokenizedTexts
from sentence_embedder.models.checkpoint import load_model, load_processor, save_model, save_processor
from sentence_embedder.models.token_ids import UNLIMITED, TokenIds, encodable, limit_of, texts_of

_TEXT = 1
_IMAGE = 0
"""What ``image_text_info`` says of a row."""


@dataclass(frozen=True)
class TextsAndImages:
    """Texts as token ids, not yet padded, and images as they came, in one order.

    Args:
        kinds: For each row whether it is a text or an image, as in ``image_text_info``, shape (rows,).
        texts: The texts among them.
        images: The images among them, of Pillow.
        names: What the model takes of texts.
        image_processor: What makes pixels of images, of transformers.
    """

    kinds: NDArray[np.int64]
    texts: TokenizedTexts
    images: Sequence[Any]
    names: Sequence[str]
    image_processor: Any

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each text has, and 1 for an image, shape (rows,)."""
        lengths = np.ones(len(self.kinds), dtype=np.int64)
        lengths[self.kinds == _TEXT] = self.texts.lengths
        return lengths

    @property
    def cut(self) -> NDArray[np.int64]:
        """The rows of texts that had more tokens than are kept, ascending."""
        return np.flatnonzero(self.kinds == _TEXT)[self.texts.cut]

    def batch(self, rows: Places, width: int = 0) -> Features:
        """The Features of some rows; arguments as for ``TokenizedTexts.batch``."""
        kinds = self.kinds[rows]
        # The place of each row among those of its kind.
        places = np.where(self.kinds == _TEXT, np.cumsum(self.kinds), np.cumsum(1 - self.kinds))[rows] - 1
        features: Features = {"image_text_info": kinds.tolist()}
        if (kinds == _TEXT).any():
            batch = self.texts.batch(places[kinds == _TEXT], width)
            features.update({name: column for name, column in batch.items() if name in self.names})
        images = [self.images[place].convert("RGB") for place in places[kinds == _IMAGE].tolist()]
        if images:
            features.update(self.image_processor(images, return_tensors="pt"))
        return features


class CLIPModel(nn.Module):
    """A dual encoder for texts and images (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

    It stands at the start of a chain, and takes texts and images of Pillow, mixed in any way. Needs the extra
    ``vision``.

    Args:
        model_name: A folder, or the name of a model on the Hugging Face Hub.
        processor_name: Where tokenizer and image processor are, if elsewhere.
        model_args: Keyword arguments for ``AutoModel.from_pretrained``.
        tokenizer_args: Keyword arguments for loading tokenizer and image processor.
        config_args: Keyword arguments for ``AutoConfig.from_pretrained``.

    Raises:
        ImportError: Pillow is not installed.
        WeightsError: The checkpoint lacks weights.
    """

    @also_named(
        model_name_or_path="model_name",
        model_kwargs="model_args",
        config_kwargs="config_args",
        processor_kwargs="tokenizer_args",
    )
    def __init__(
        self,
        model_name: str = "openai/clip-vit-base-patch32",
        processor_name: str | None = None,
        *,
        model_args: Mapping[str, Any] | None = None,
        tokenizer_args: Mapping[str, Any] | None = None,
        config_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        name = str(model_name)
        self.model: Any = load_model(name, None, model_args or {}, config_args or {})
        self.processor: Any = load_processor(processor_name or name, tokenizer_args or {})
        if not hasattr(self.model, "get_text_features"):
            raise ValueError(f"{name}: expected a CLIP model, found a {type(self.model).__name__}")
        places: int = self.model.config.text_config.max_position_embeddings
        self.max_seq_length: int | None = min(places, self.tokenizer.model_max_length)
        self._token_ids = TokenIds()

    @classmethod
    def load(cls, input_path: str | Path, **arguments: Any) -> CLIPModel:
        """The module that a folder holds; arguments and errors as for the constructor."""
        return cls(str(input_path), **arguments)

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write model, tokenizer and image processor into a folder; arguments as for ``Module.save``."""
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(folder, self.model, safe_serialization=safe_serialization)
        save_processor(folder, self.processor)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of texts."""
        return self.processor.tokenizer

    def tokenize(self, texts: Sequence[Any], padding: str | bool = True) -> Features:
        """The Features of a batch of texts and images.

        Args:
            texts: Each a text, cut to what the model takes, or a ``PIL.Image.Image``.
            padding: To how many tokens texts are padded; see ``TokenizedTexts.least_width``.

        Returns:
            ``input_ids`` and ``attention_mask`` (texts, tokens), ``pixel_values`` (images, channels, height,
            width), and ``image_text_info``: for each of the batch 0 for an image, 1 for a text.
        """
        tokenized, limit = self.tokenize_ahead(texts), limit_of(self.tokenizer, self.max_seq_length)
        return tokenized.batch(range(len(texts)), tokenized.texts.least_width(padding, limit))

    def tokenize_ahead(self, texts: Sequence[Any]) -> TextsAndImages:
        """The token ids of any number of texts, cut to what the model takes, and the images between them."""
        from PIL.Image import Image

        kinds = np.array([_IMAGE if isinstance(item, Image) else _TEXT for item in texts], dtype=np.int64)
        plain = [encodable(str(item)) for item, kind in zip(texts, kinds, strict=True) if kind == _TEXT]
        images = [item for item, kind in zip(texts, kinds, strict=True) if kind == _IMAGE]
        limit = UNLIMITED if self.max_seq_length is None else self.max_seq_length
        tokenizer = self.tokenizer
        tokenized = self._token_ids.tokenized(tokenizer, limit, plain, None)
        columns = {
            name: np.fromiter(chain.from_iterable(rows), dtype=np.int32) for name, rows in tokenized.columns.items()
        }
        lengths = list(map(len, tokenized.columns["input_ids"]))
        return TextsAndImages(
            kinds=kinds,
            texts=texts_of(tokenizer, columns, lengths, tokenized.cut),
            images=images,
            names=tokenizer.model_input_names,
            image_processor=self.processor.image_processor,
        )

    def forward(self, features: Features) -> Features:
        """Adds ``sentence_embedding`` (texts and images, dim), in their order."""
        made: dict[int, Any] = {}
        if "pixel_values" in features:
            made[_IMAGE] = iter(_pooled(self.model.get_image_features(pixel_values=features["pixel_values"])))
        if "input_ids" in features:
            mask = features.get("attention_mask")
            of_texts = self.model.get_text_features(input_ids=features["input_ids"], attention_mask=mask)
            made[_TEXT] = iter(_pooled(of_texts))
        rows = [next(made[kind]) for kind in features["image_text_info"]]
        return {**features, "sentence_embedding": torch.stack(rows).float()}

    def get_sentence_embedding_dimension(self) -> int:
        """Width of the embeddings."""
        width: int = self.model.config.projection_dim
        return width


def _pooled(output: Any) -> Tensor:
    """The embeddings of texts or images, which later versions of transformers wrap."""
    embeddings: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return embeddings
