"""The encoder, which maps an image to a sequence of column features.

Shapes: N images, channels C, height H, width W, T columns, D features (the definition's `width`).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import ModelDefinition
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX

COLUMNS = IMAGE_WIDTH_PX // 4  # the two convolutions of the stem halve the width


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al. 2016), initialised as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm_relu(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        last_norm = self.body[-1]
        assert isinstance(last_norm, nn.BatchNorm2d)
        nn.init.zeros_(last_norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        return F.relu(features + self.body(features), inplace=True)


class LocalContext(nn.Module):
    """Adds context from neighbouring columns: a depthwise convolution over columns, then a two-layer perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        seven_columns = nn.Conv2d(width, width, (1, 7), padding=(0, 3), groups=width)
        self.neighbours = nn.Sequential(seven_columns, FeatureNorm(width))
        # 1 x 1 convolutions instead of linear layers: on AMD, oneDNN is twice as fast here as BLAS.
        self.mix = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, D, 1, T)`` to the same shape."""
        mixed: Tensor = columns + self.mix(self.neighbours(columns))
        return mixed


class FeatureNorm(nn.LayerNorm):
    """Layer normalisation of each column's features (Ba et al. 2016), without a copy of channels-last tensors."""

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, D, 1, T)`` to the same shape."""
        return super().forward(columns.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ColumnEncoder(nn.Module):
    """Maps a grey image of 64 x 128 pixels to 32 columns, left to right.

    The stem halves height and width twice. Each stage then halves only the height, because the horizontal resolution
    must keep neighbouring characters apart. Most operations run at a resolution of 8 x 32 or lower, with enough
    channels to use the CPU's matrix units fully.
    """

    def __init__(self, definition: ModelDefinition) -> None:
        super().__init__()
        width = definition.width
        layers: list[nn.Module] = []
        channels = 1
        for wider in definition.stem_channels:
            layers += conv_norm_relu(channels, wider, stride=(2, 2))
            channels = wider
        for wider in definition.stage_channels:
            layers += conv_norm_relu(channels, wider, stride=(2, 1))
            layers += [ResidualBlock(wider) for _ in range(definition.blocks_per_stage)]
            channels = wider
        self.image = nn.Sequential(*layers)
        rows = IMAGE_HEIGHT_PX >> (len(definition.stem_channels) + len(definition.stage_channels))
        self.column = nn.Sequential(nn.Conv2d(channels, width, (rows, 1)), FeatureNorm(width))
        layers = [LocalContext(width) for _ in range(definition.context_layers)]
        self.context = nn.Sequential(*layers, FeatureNorm(width))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(N, 1, H, W)`` to columns ``(N, T, D)``."""
        count, _, height, width = images.shape
        # With one channel, both memory formats are contiguous; declare channels last, which all later layers use.
        images = images.reshape(count, height, width, 1).permute(0, 3, 1, 2)
        context: Tensor = self.context(self.column(self.image(images)))
        return context.squeeze(2).transpose(1, 2)


def conv_norm_relu(inputs: int, outputs: int, stride: tuple[int, int] = (1, 1)) -> list[nn.Module]:
    """Create the layers of a 3 x 3 convolution, a batch normalisation and a ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
