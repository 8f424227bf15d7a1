"""Classifiers of sentences: `ids` int64 `[B, L]` and `mask` bool `[B, L]`, where what the mask hides has no effect.

B sentences, L tokens, D channels. A layer of `stage_names` gives what the tokens have become as a map `[B, D, L, 1]`,
zero where the mask hides a token, so that methods that compare feature maps of images can compare these.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenMap(nn.Module):
    """Shows tokens `[B, L, D]` to the methods that read layers, as a map `[B, D, L, 1]`; nothing else uses it."""

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        return _hidden(h, mask).transpose(1, 2).unsqueeze(-1)


class TextTransformer(nn.Module):
    """Transformer encoder with normalization before each block (Xiong et al., arXiv 2002.04745), mean over tokens.

    Args:
        num_classes: Number of logits.
        vocabulary: Number of token ids.
        max_length: Most tokens of a sentence.
        padding: Token id of what fills a batch.
        width: D.
        depth: Number of blocks.
        heads: Number of attention heads; D is a multiple of it.
        dropout: Probability, behind embeddings, attention and each block's products, and before the classifier.
    """

    head_name = "fc"

    def __init__(
        self,
        num_classes: int,
        vocabulary: int,
        max_length: int,
        padding: int = 0,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embed = _embedding(vocabulary, width, padding)
        self.place = nn.Parameter(width**-0.5 * torch.randn(max_length, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.maps = nn.ModuleList(TokenMap() for _ in range(depth))
        self.stage_names = tuple(f"maps.{i}" for i in range(depth))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.dropout(self.embed(ids) + self.place[: ids.shape[1]])
        for block, shown in zip(self.blocks, self.maps, strict=True):
            h = block(h, mask)
            shown(h, mask)
        return self.fc(self.dropout(_mean(self.norm(h), mask)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.reduce = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.rate if self.training else 0.0
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :], dropout_p=rate)
        h = h + self.dropout(self.out(a.transpose(1, 2).flatten(2)))
        return h + self.dropout(self.reduce(F.gelu(self.expand(self.norm2(h)))))


class TextBiLSTM(nn.Module):
    """LSTM forwards and one backwards, largest state of each channel over the tokens.

    The backward one reads each sentence from its last token on, not from the padding on.

    Args:
        num_classes: Number of logits.
        vocabulary: Number of token ids.
        padding: Token id of what fills a batch.
        width: Channels of an embedding.
        hidden: Channels of each direction; D is twice that.
        dropout: Probability, behind embeddings and before the classifier.
    """

    head_name = "fc"
    stage_names = ("map1", "map2")

    def __init__(
        self,
        num_classes: int,
        vocabulary: int,
        padding: int = 0,
        width: int = 64,
        hidden: int = 64,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.embed = _embedding(vocabulary, width, padding)
        self.dropout = nn.Dropout(dropout)
        self.forwards, self.backwards = (nn.LSTM(width, hidden, batch_first=True) for _ in range(2))
        self.map1, self.map2 = TokenMap(), TokenMap()
        self.fc = nn.Linear(2 * hidden, num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids)
        self.map1(h, mask)
        h = self.dropout(h)
        lengths = mask.sum(1, keepdim=True)
        place = torch.arange(ids.shape[1], device=ids.device)
        mirrored = torch.where(mask, lengths - 1 - place, place)[..., None]  # its own inverse
        ahead, _ = self.forwards(h)
        back, _ = self.backwards(h.gather(1, mirrored.expand_as(h)))
        h = torch.cat([ahead, back.gather(1, mirrored.expand_as(back))], 2)
        self.map2(h, mask)
        largest = h.masked_fill(~mask[..., None], -1.0).amax(1)  # a state is above -1
        return self.fc(self.dropout(largest))


class TextCNN(nn.Module):
    """Convolutions of several widths over the embeddings, ReLU, largest value of each channel (Kim, arXiv 1408.5882).

    Args:
        num_classes: Number of logits.
        vocabulary: Number of token ids.
        padding: Token id of what fills a batch.
        width: Channels of an embedding.
        channels: Channels of each convolution.
        kernels: Tokens that each convolution sees.
        dropout: Probability, behind embeddings and before the classifier.
    """

    head_name = "fc"
    stage_names = ("map1", "map2")

    def __init__(
        self,
        num_classes: int,
        vocabulary: int,
        padding: int = 0,
        width: int = 64,
        channels: int = 64,
        kernels: Sequence[int] = (3, 4, 5),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        self.embed = _embedding(vocabulary, width, padding)
        self.dropout = nn.Dropout(dropout)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, channels, kernel) for kernel in self.kernels)
        self.map1, self.map2 = TokenMap(), TokenMap()
        self.fc = nn.Linear(channels * len(self.kernels), num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids)
        self.map1(h, mask)
        x = self.dropout(_hidden(h, mask)).transpose(1, 2)
        seen = [
            F.relu(convolution(F.pad(x, ((kernel - 1) // 2, kernel // 2))))
            for kernel, convolution in zip(self.kernels, self.convolutions, strict=True)
        ]
        h = _hidden(torch.cat(seen, 1).transpose(1, 2), mask)
        self.map2(h, mask)
        return self.fc(self.dropout(h.amax(1)))  # no value is below the zeros of the padding


class TextBag(nn.Module):
    """Mean of the embeddings, whatever their order, and one hidden layer.

    Args:
        num_classes: Number of logits.
        vocabulary: Number of token ids.
        padding: Token id of what fills a batch.
        width: Channels of an embedding.
        hidden: Channels of the hidden layer.
        dropout: Probability, behind the mean and before the classifier.
    """

    head_name = "fc"
    stage_names = ("map1",)

    def __init__(
        self,
        num_classes: int,
        vocabulary: int,
        padding: int = 0,
        width: int = 32,
        hidden: int = 32,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.embed = _embedding(vocabulary, width, padding)
        self.map1 = TokenMap()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(width, hidden)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids)
        self.map1(h, mask)
        return self.fc(self.dropout(F.relu(self.hidden(self.dropout(_mean(h, mask))))))


TEXT = {
    "text_transformer": TextTransformer,
    "text_bilstm": TextBiLSTM,
    "text_cnn": TextCNN,
    "text_bag": TextBag,
}
"""Built-in networks for data with a `vocabulary`."""


def _embedding(vocabulary: int, width: int, padding: int) -> nn.Embedding:
    embedding = nn.Embedding(vocabulary, width, padding_idx=padding)
    with torch.no_grad():
        embedding.weight.mul_(width**-0.5)  # a token's vector has length one or so
    return embedding


def _hidden(h: Tensor, mask: Tensor) -> Tensor:
    """Return `h` `[B, L, D]` with zeros where the mask hides a token."""
    return h.masked_fill(~mask[..., None], 0.0)


def _mean(h: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens that the mask shows, `[B, D]`."""
    return _hidden(h, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
