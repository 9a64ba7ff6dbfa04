"""Models of transformers as ONNX files, the ways people export them today."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

VOCABULARY_TOKENS, PAST = 5, 3  # of the example that an exporter is given
LEGACY_OPSET, DYNAMO_OPSET = 17, 20


def export(model: Any, path: Path, dynamo: bool, cached: bool) -> Path:
    """Writes a model of transformers: by torch.onnx with or without dynamo, with or without caches.

    Inputs and outputs are named and ordered as optimum does: input_ids, attention_mask, position_ids and
    past_key_values.N.key / .value; logits and present.N.key / .value.
    """
    import torch

    wrapper, arguments, inputs, outputs, axes = (_cached if cached else _stateless)(model)
    options: dict[str, Any] = {"input_names": inputs, "output_names": outputs, "dynamo": dynamo}
    if dynamo:
        options |= {"dynamic_shapes": axes, "opset_version": DYNAMO_OPSET}
    else:
        named = dict(zip([*inputs, *outputs], [*_flat(axes), *_outputs(outputs)], strict=True))
        options |= {"dynamic_axes": named, "opset_version": LEGACY_OPSET}
    noise = io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            warnings.simplefilter("ignore")
            with torch.no_grad():
                torch.onnx.export(wrapper.eval(), arguments, path, **options)
    finally:
        logging.disable(logging.NOTSET)
    return path


def _stateless(model: Any) -> tuple[Any, Any, list[str], list[str], Any]:
    import torch

    class Stateless(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits

    ids = torch.arange(1, 1 + VOCABULARY_TOKENS)[None]
    axes = ({0: "batch", 1: "tokens"}, {0: "batch", 1: "tokens"})
    return Stateless(), (ids, torch.ones_like(ids)), ["input_ids", "attention_mask"], ["logits"], axes


def _cached(model: Any) -> tuple[Any, Any, list[str], list[str], Any]:
    import torch
    from transformers import DynamicCache

    class Cached(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, past: Any) -> Any:
            more: dict[str, Any] = {"position_ids": position_ids} if takes_positions(self.model) else {}
            more |= {"past_key_values": DynamicCache(list(past)), "use_cache": True}
            found = self.model(input_ids=input_ids, attention_mask=attention_mask, **more)
            return found.logits, *(x for layer in found.past_key_values.layers for x in (layer.keys, layer.values))

    ids = torch.arange(1, 1 + VOCABULARY_TOKENS)[None]
    with torch.no_grad():
        layers = model(input_ids=ids, use_cache=True).past_key_values.layers
    past = tuple((x.keys[:, :, :PAST].clone(), x.values[:, :, :PAST].clone()) for x in layers)
    total = PAST + VOCABULARY_TOKENS
    arguments = (ids, torch.ones(1, total, dtype=torch.long), torch.arange(PAST, total)[None], past)
    names = [f"{i}.{kind}" for i in range(len(past)) for kind in ("key", "value")]
    inputs = ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)]
    outputs = ["logits", *(f"present.{name}" for name in names)]
    tokens, whole, cache = {0: "batch", 1: "tokens"}, {0: "batch", 1: "total"}, {0: "batch", 2: "past"}
    return Cached(), arguments, inputs, outputs, (tokens, whole, tokens, tuple((cache, cache) for _ in past))


def takes_positions(model: Any) -> bool:
    """Whether the model is told positions."""
    import inspect

    return "position_ids" in inspect.signature(model.forward).parameters


def _flat(axes: Any) -> list[Any]:
    return [
        each
        for entry in axes
        for each in ([x for pair in entry for x in pair] if isinstance(entry, tuple) else [entry])
    ]


def _outputs(names: list[str]) -> list[dict[int, str]]:
    return [{0: "batch", 1: "tokens"} if name == "logits" else {0: "batch", 2: "whole"} for name in names]
