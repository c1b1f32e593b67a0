"""A transformer over the tokens of captions, for methods that learn from images and their texts.

encoder = TextEncoder(TextShape(vocabulary=1000, length=32), width=256, depth=4, heads=4)
features = encoder(tokens)                     # (B, L) token ids -> (B, 256)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssl_tasks.modalities.captions import END, TextShape

INIT_STD, PLACE_STD = 0.02, 0.01


class TextEncoder(nn.Module):
    """The GPT-2 kind of CLIP (arXiv 2103.00020, section 2.4): pre-norm, causal, read where the caption ends.

    What stands after the end token is padding, which a causal model does not look at.
    """

    def __init__(self, shape: TextShape, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, width)
        self.places = nn.Parameter(torch.empty(shape.length, width))
        self.blocks = nn.ModuleList(_block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("hidden", torch.ones(shape.length, shape.length).triu(1).bool(), persistent=False)
        nn.init.normal_(self.tokens.weight, std=INIT_STD)
        nn.init.normal_(self.places, std=PLACE_STD)
        for name, weight in self.blocks.named_parameters():
            if (
                weight.ndim == 2
            ):  # what is added to the stream shrinks with the number of additions (GPT-2, section 2.3)
                adds = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(weight, std=INIT_STD / math.sqrt(2 * depth) if adds else INIT_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """(B, width) features of int64 token ids (B, L), each row with one end token."""
        x_BLW = self.tokens(tokens_BL) + self.places
        for block in self.blocks:
            x_BLW = block(x_BLW, src_mask=self.hidden, is_causal=True)
        ends = (tokens_BL == END).int().argmax(dim=1)
        features: Tensor = self.norm(x_BLW[torch.arange(len(ends), device=ends.device), ends])
        return features


def _block(width: int, heads: int) -> nn.TransformerEncoderLayer:
    """Without dropout: a step must not depend on a random state."""
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
