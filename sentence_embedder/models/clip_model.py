"""CLIPModel: texts and images in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.argument_names import also_named
from sentence_embedder.features import Features
from sentence_embedder.models.checkpoint import (
    load_model,
    load_processor,
    one_call_at_a_time,
    save_model,
    save_processor,
)
from sentence_embedder.models.token_ids import encodable


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
            padding: To how many tokens texts are padded, as the tokenizer takes it.

        Returns:
            ``input_ids`` and ``attention_mask`` (texts, tokens), ``pixel_values`` (images, channels, height,
            width), and ``image_text_info``: for each of the batch 0 for an image, 1 for a text.
        """
        from PIL.Image import Image

        info = [0 if isinstance(item, Image) else 1 for item in texts]
        features: Features = {"image_text_info": info}
        if 1 in info:
            plain = [encodable(str(item)) for item, kind in zip(texts, info, strict=True) if kind]
            cut = {"truncation": self.max_seq_length is not None, "max_length": self.max_seq_length}
            with one_call_at_a_time():
                features.update(self.tokenizer(plain, padding=padding, return_tensors="pt", **cut))
        if 0 in info:
            images = [item.convert("RGB") for item, kind in zip(texts, info, strict=True) if not kind]
            features.update(self.processor.image_processor(images, return_tensors="pt"))
        return features

    def forward(self, features: Features) -> Features:
        """Adds ``sentence_embedding`` (texts and images, dim), in their order."""
        made: dict[int, Any] = {}
        if "pixel_values" in features:
            made[0] = iter(_pooled(self.model.get_image_features(pixel_values=features["pixel_values"])))
        if "input_ids" in features:
            mask = features.get("attention_mask")
            of_texts = self.model.get_text_features(input_ids=features["input_ids"], attention_mask=mask)
            made[1] = iter(_pooled(of_texts))
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
