"""Regions of torchvision's Faster R-CNN (ResNet-50 FPN): proposals and the vectors of the box head, as SIAM uses them.

Guided Image Retrieval took the output of the second fully connected layer by a hook, which fails or mixes pictures up when
one of a batch has fewer proposals than the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from corpora.regions import Regions
from models.region_extractor import Precision, device_of, inference, pixel_tensor, require_torchvision
from models.weight_files import load_named, read_tensors

CLASSES = 91
"""COCO's, with the background and the numbers that it leaves out."""


def faster_rcnn(regions: int) -> Any:
    """The detector of torchvision's published COCO weights, with `regions` proposals an image."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    # The published weights were trained with an epsilon of 0, by mistake
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=partial(FrozenBatchNorm2d, eps=0.0), trainable_layers=0
    )
    model = FasterRCNN(backbone, CLASSES, rpn_post_nms_top_n_test=regions)
    return model.requires_grad_(False).eval()


class FasterRcnnExtractor:
    """The best `regions` proposals of a picture and their vectors, 1,024 wide."""

    name = "faster-rcnn"
    width = 1024

    def __init__(self, model: Any, regions: int, precision: Precision = "no") -> None:
        self.model, self.regions, self._precision = model, regions, precision

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Regions]:
        device = device_of(self.model)
        found: dict[int, Regions] = {}
        with inference(self.model, self._precision):
            resized = [self.model.transform([pixel_tensor(picture, device) / 255])[0] for picture in pictures]
            for group in _alike(image.tensors.shape for image in resized):
                sizes = [resized[i].image_sizes[0] for i in group]
                seen = self._regions(torch.cat([resized[i].tensors for i in group]), sizes)
                found |= dict(zip(group, seen, strict=True))
        return [found[i] for i in range(len(pictures))]

    def _regions(self, pixels: Tensor, sizes: list[tuple[int, int]]) -> list[Regions]:
        """Of pictures of one padded size; `sizes` are (height, width)."""
        from torchvision.models.detection.image_list import ImageList

        features = self.model.backbone(pixels)
        proposals, _ = self.model.rpn(ImageList(pixels, sizes), features)
        proposals = [_exactly(self.regions, boxes, size) for boxes, size in zip(proposals, sizes, strict=True)]
        heads = self.model.roi_heads
        vectors = heads.box_head(heads.box_roi_pool(features, proposals, sizes)).float().split(self.regions)
        return [
            Regions("", vector.cpu().numpy(), (boxes / boxes.new_tensor([width, height] * 2)).clamp(0, 1).cpu().numpy())
            for vector, boxes, (height, width) in zip(vectors, proposals, sizes, strict=True)
        ]


def _alike(shapes: Iterable[torch.Size]) -> list[list[int]]:
    """Which pictures may share a batch: padding to a larger neighbour would change what the network sees at their edges."""
    groups = defaultdict(list)
    for i, shape in enumerate(shapes):
        groups[shape].append(i)
    return list(groups.values())


def _exactly(count: int, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (count, 4): of fewer, the first come again; of none, the whole picture."""
    boxes = boxes.float() if len(boxes) else torch.tensor([[0.0, 0.0, size[1], size[0]]], device=boxes.device)
    return boxes.repeat(-(-count // len(boxes)), 1)[:count]


def load(checkpoint: str, regions: int = 50, precision: Precision = "no") -> FasterRcnnExtractor:
    """The extractor with the weights of a file, such as torchvision's fasterrcnn_resnet50_fpn_coco-258fb6c6.pth."""
    require_torchvision()
    if not Path(checkpoint).is_file():
        raise ValueError(
            f"checkpoint {checkpoint!r}: no such file; name one of torchvision's fasterrcnn_resnet50_fpn weights, which "
            "torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url says where to fetch"
        )
    tensors = read_tensors(Path(checkpoint))
    model = faster_rcnn(regions)
    counters = [name for name in tensors if name.endswith(".num_batches_tracked")]  # of a normalisation that was not frozen
    load_named(model, {name: value for name, value in tensors.items() if name not in counters}, checkpoint)
    return FasterRcnnExtractor(model, regions, precision)
