"""Classifiers of Hugging Face, of sentences and of images: `hf/NAME` of the hub, or `hf/FOLDER`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.models.text import TokenMap
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.hub import fetched, library
from kd_lightning.utils.trust import check_network

CONFIG = "config"
"""Argument of such a network that holds its whole configuration: a student's card has it, and needs no folder then."""
CODE = ("auto_map", "attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Keys of a configuration that may fetch code; they are left out."""


class HuggingFace(nn.Module):
    """Base class of both kinds."""

    def __init__(self, network: nn.Module, config: Any) -> None:
        super().__init__()
        self.network = network
        values = {name: value for name, value in config.to_dict().items() if name not in CODE}
        self.card_kwargs = {CONFIG: values}
        """Arguments that rebuild it, as plain values."""
        wide = [name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        self.head_name = f"network.{wide[-1]}"
        self.fresh: list[str] = []
        """Names of the weights that the pretrained files do not have; they are random."""


class SentenceClassifier(HuggingFace):
    """From `ids` int64 `[B, L]` and `mask` bool `[B, L]` to logits `[B, C]`.

    What each layer makes of the tokens is shown as a map `[B, D, L, 1]`, `maps.0` and so on; see `models.text`.
    """

    def __init__(self, network: nn.Module, config: Any) -> None:
        super().__init__(network, config)
        self.maps = nn.ModuleList(TokenMap() for _ in range(int(config.num_hidden_layers)))
        self.stage_names = tuple(f"maps.{i}" for i in range(len(self.maps)))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        answer: Any = self.network(input_ids=ids, attention_mask=mask, output_hidden_states=True, return_dict=True)
        # The first one is of the embeddings. A network with fewer states than layers shows those that it has.
        for shown, h in zip(self.maps, answer.hidden_states[1:], strict=False):
            shown(h, mask)
        return answer.logits


class ImageClassifier(HuggingFace):
    """From images `[B, 3, H, W]` to logits `[B, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network(pixel_values=x, return_dict=True).logits


def hugging_face(
    name: str, num_classes: int, pretrained: bool, key: str, kwargs: Mapping[str, Any], facts: Mapping[str, Any]
) -> HuggingFace:
    """Return the classifier `hf/…` of sentences, if the data has a `vocabulary`, or else of images.

    Args:
        name: `hf/NAME` or `hf/FOLDER`.
        num_classes: Number of logits; a head of another size starts anew.
        pretrained: Start from its weights.
        key: What the user typed to name it.
        kwargs: Changes of its configuration; or all of it as `config`, for which nothing is read.
        facts: Facts of the data.

    Raises:
        UserError: If transformers, the name or the weights are not there, or it is no classifier of such data.
    """
    text = "vocabulary" in facts
    if not text and "image_size" not in facts:
        raise UserError(f"{key}: {name} can be a network for images or text, and this data set has none")
    transformers = library(name, key)
    kind: Any = transformers.AutoModelForImageClassification
    if text:
        kind = transformers.AutoModelForSequenceClassification
    config = _config(transformers, name, key, kwargs)
    config.num_labels = num_classes
    if text and config.pad_token_id is None:
        config.pad_token_id = facts["padding"]
    if type(config) not in kind._model_mapping:
        raise UserError(f"{key}: {name} ({config.model_type}) is no classifier of {'sentences' if text else 'images'}")
    if text and facts["vocabulary"] > config.vocab_size:
        raise UserError(
            f"{key}: {name} knows {config.vocab_size:,} tokens, and the data's tokenizer gives "
            f"{facts['vocabulary']:,}; use its own: data.tokenizer={name}"
        )
    longest = config.to_dict().get("max_position_embeddings")
    if text and longest is not None and facts["max_length"] > longest:
        raise UserError(f"{key}: {name} reads {longest} tokens at most; set data.max_length={longest} or less")
    chosen = {"dtype": torch.float32, "trust_remote_code": False}
    made = SentenceClassifier if text else ImageClassifier
    if not pretrained:
        try:
            return made(kind.from_config(config, **chosen), config)
        except Exception as e:  # whatever a network raises about values of its configuration
            told = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise UserError(f"{key}: {name} refuses its configuration ({type(e).__name__}: {told})") from e

    def load(place: str) -> Any:
        told = {"ignore_mismatched_sizes": True, "output_loading_info": True}
        return kind.from_pretrained(place, config=config, **told, **chosen)

    network, told = fetched(name, key, "the weights", load)
    model = made(network, config)
    model.fresh = sorted({*told["missing_keys"], *(one[0] for one in told["mismatched_keys"])})
    sizes = {k: tensor.numel() for k, tensor in network.state_dict().items()}
    if 2 * sum(sizes.get(k, 0) for k in model.fresh) > sum(sizes.values()):
        raise UserError(
            f"{key}: the weights of {name} are of another network; they lack {', '.join(model.fresh[:3])}, …"
        )
    return model


def _config(transformers: Any, name: str, key: str, kwargs: Mapping[str, Any]) -> Any:
    changes = dict(kwargs)
    whole = changes.pop(CONFIG, None)
    if whole is not None:
        values = {k: v for k, v in whole.items() if k not in CODE}
        try:
            config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
        except Exception as e:  # whatever a configuration raises about values that a file holds
            told = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise UserError(f"{key}: the configuration of {name} is damaged ({type(e).__name__}: {told})") from e
    else:
        read = transformers.AutoConfig.from_pretrained
        config = fetched(name, key, "the configuration", lambda place: read(place, trust_remote_code=False))
    config._attn_implementation = config._experts_implementation = None  # a name here may fetch code
    if config.model_type == "timm_wrapper":
        check_network(f"timm/{config.architecture}", config.model_args or {}, key)
    known = config.to_dict()
    for argument in changes:
        if argument not in known or argument in CODE:
            raise UserError(f"{key}_kwargs: {name} has no {argument!r}{did_you_mean(argument, known)}")
    config.update(changes)
    return config
