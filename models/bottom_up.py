"""Bottom-up attention (Anderson et al. 2018): a Faster R-CNN on ResNet-101 C4 with 1,600 classes and 400 attributes of Visual Genome.

The features LXMERT, Oscar and others were pretrained with. Tensors have the names of the public PyTorch checkpoints,
`unc-nlp/frcnn-vg-finetuned` and py-bottom-up-attention's pickles. Shapes: B pictures, K regions of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from corpora.regions import Regions
from models.bottom_up_boxes import (
    PRESETS,
    Detection,
    Nms,
    cell_anchors,
    choose,
    clipped,
    grid_anchors,
    propose,
    regressed,
    resized,
)
from models.bottom_up_weights import check_config, find_weights
from models.region_extractor import Precision, device_of, inference, pixel_tensor, require_torchvision
from models.weight_files import load_named, read_tensors

PUBLISHED = "unc-nlp/frcnn-vg-finetuned"
CLASSES, ATTRIBUTES = 1600, 400
STRIDE = 16
"""Pixels of the resized picture to a place of the feature map."""
POOLED = 14
"""Places of a region on each side."""
REGIONS_AT_ONCE = 100
"""Regions that go through the last stage together; its first map takes 80 MB for so many."""
MEANS_BGR = (102.9801, 115.9465, 122.7717)
OPTIONAL = (".num_batches_tracked", "cell_anchors.0")
"""What a detectron2 checkpoint lacks."""


class ConvNorm(nn.Conv2d):
    """A convolution and a BatchNorm, named as detectron2 does."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(super().forward(x))
        return normed


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; the stride is in the first convolution, as in Caffe."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.shortcut = ConvNorm(inputs, outputs, stride=stride) if inputs != outputs else None
        self.conv1 = ConvNorm(inputs, inner, stride=stride)
        self.conv2 = ConvNorm(inner, inner, 3, dilation=dilation)
        self.conv3 = ConvNorm(inner, outputs)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """`inside`: (B, 1, H, W), which places of the output belong to the picture and not to the padding beside it."""
        y = F.relu_(self.conv1(x))
        if inside is not None:
            y = y * inside  # the 3x3 convolution must find zeros beyond the picture's edge, as it does without padding
        y = self.conv3(F.relu_(self.conv2(y)))
        return F.relu_(y + (x if self.shortcut is None else self.shortcut(x)))


def stage(blocks: int, inputs: int, inner: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.ModuleList:
    first = Bottleneck(inputs, inner, outputs, stride, dilation)
    return nn.ModuleList([first, *(Bottleneck(outputs, inner, outputs, 1, dilation) for _ in range(blocks - 1))])


class Backbone(nn.Module):
    """ResNet-101 up to its third stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({"conv1": ConvNorm(3, 64, 7, 2)})
        self.res2 = stage(3, 64, 64, 256)
        self.res3 = stage(4, 256, 128, 512, 2)
        self.res4 = stage(23, 512, 256, 1024, 2)

    def forward(self, pixels: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, 1024, H / 16, W / 16), zero outside the pictures; `inside` (B, 1, H, W) -> the same of the map."""
        inside = inside[:, :, ::2, ::2]
        x = F.relu_(self.stem["conv1"](pixels)) * inside
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # no padding, as in Caffe: a place more than PyTorch's own on some sizes
        inside = inside[:, :, 1::2, 1::2]
        for number, blocks in enumerate((self.res2, self.res3, self.res4)):
            if number:
                inside = inside[:, :, ::2, ::2]
            for block in blocks:
                x = block(x, inside)
        return x * inside, inside


class RpnHead(nn.Module):
    """Objectness and deltas of the anchors at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1024, 512, 3, padding=1)
        self.objectness_logits = nn.Conv2d(512, len(cell_anchors()), 1)
        self.anchor_deltas = nn.Conv2d(512, 4 * len(cell_anchors()), 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1024, H, W) -> objectness (B, H, W, A) and deltas (B, H, W, A, 4), float32."""
        x = F.relu_(self.conv(features))
        objectness = self.objectness_logits(x).permute(0, 2, 3, 1)
        deltas = self.anchor_deltas(x).unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2)
        return objectness.float(), deltas.float()


class ProposalGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.anchor_generator = nn.Module()
        self.anchor_generator.cell_anchors = nn.Module()
        self.anchor_generator.cell_anchors.register_buffer("0", cell_anchors())
        self.rpn_head = RpnHead()

    def forward(
        self, features: Tensor, inside: Tensor, sizes: Sequence[tuple[int, int]], detection: Detection, nms: Nms
    ) -> list[Tensor]:
        """Proposals (P, 4) of each picture; `sizes` are (width, height)."""
        objectness, deltas = self.rpn_head(features)
        anchors = grid_anchors(self.get_buffer("anchor_generator.cell_anchors.0"), features.shape[2], features.shape[3], STRIDE)
        proposals = []
        for i, size in enumerate(sizes):
            mine = inside[i, 0]
            proposals.append(
                propose(
                    anchors[mine].view(-1, 4), objectness[i, mine].view(-1), deltas[i, mine].view(-1, 4), size, detection, nms
                )
            )
        return proposals


class BoxPredictor(nn.Module):
    """Class, box and attribute of a region."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_score = nn.Linear(2048, CLASSES + 1)  # background is the last
        self.bbox_pred = nn.Linear(2048, 4 * CLASSES)
        self.cls_embedding = nn.Embedding(CLASSES + 1, 256)
        self.fc_attr = nn.Linear(2048 + 256, 512)
        self.attr_score = nn.Linear(512, ATTRIBUTES + 1)  # none is the last

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(K, 2048) -> logits of classes (K, 1601), deltas (K, 1600, 4), logits of attributes (K, 401), float32."""
        logits = self.cls_score(features)
        described = torch.cat((features, self.cls_embedding(logits.argmax(dim=1)).to(features.dtype)), dim=1)
        attributes = self.attr_score(F.relu_(self.fc_attr(described)))
        return logits.float(), self.bbox_pred(features).float().view(-1, CLASSES, 4), attributes.float()


class RoiHeads(nn.Module):
    """The last stage, on each region apart: at stride 1 and dilated, so that a region keeps its 14 x 14 places."""

    def __init__(self) -> None:
        super().__init__()
        self.res5 = stage(3, 1024, 512, 2048, dilation=2)
        self.box_predictor = BoxPredictor()

    def forward(self, features: Tensor, proposals: Sequence[Tensor]) -> Tensor:
        """(B, 1024, H, W) and a list of (P, 4) boxes -> (K, 2048) float32."""
        from torchvision.ops import roi_pool

        owners = [box.new_full((len(box), 1), i) for i, box in enumerate(proposals)]
        regions = torch.cat((torch.cat(owners), torch.cat(list(proposals))), dim=1)
        pooled = []
        for some in regions.split(REGIONS_AT_ONCE):
            x = roi_pool(features.float(), some, POOLED, 1 / STRIDE)  # which knows no bfloat16
            for block in self.res5:
                x = block(x)
            pooled.append(x.float().mean(dim=(2, 3)))
        return torch.cat(pooled)


@dataclass(frozen=True)
class Detected:
    """R regions of one picture; features are those of the proposal, boxes (in resized pixels) the class's own."""

    features: Tensor
    boxes: Tensor
    classes: Tensor
    scores: Tensor
    attributes: Tensor
    attribute_scores: Tensor


class BottomUp(nn.Module):
    """The detector: 640 tensors, 65,439,870 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.proposal_generator = ProposalGenerator()
        self.roi_heads = RoiHeads()
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor, sizes: Sequence[tuple[int, int]], detection: Detection) -> list[Detected]:
        """`pixels` (B, 3, H, W): BGR less the means, zero beyond each picture's own (width, height) in `sizes`."""
        from torchvision.ops import nms

        rows, columns = (torch.arange(n, device=pixels.device) for n in pixels.shape[2:])
        inside = torch.stack([(rows[:, None] < height) & (columns < width) for width, height in sizes])[:, None]
        features, inside = self.backbone(pixels, inside)
        proposals = self.proposal_generator(features, inside, sizes, detection, nms)
        pooled = self.roi_heads(features, proposals)
        heads = (pooled, *self.roi_heads.box_predictor(pooled))
        shares = zip(*(x.split([len(boxes) for boxes in proposals]) for x in heads), strict=True)
        return [
            detected(boxes, share, size, detection.regions, nms)
            for boxes, share, size in zip(proposals, shares, sizes, strict=True)
        ]


Heads = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of each proposal: features, logits of the classes, deltas, logits of the attributes."""


def detected(proposals: Tensor, heads: Heads, size: tuple[int, int], count: int, nms: Nms) -> Detected:
    """One picture's regions: each proposal's best class and that class's box, then NMS over all classes together."""
    features, logits, deltas, attributes = heads
    scores, classes = logits.softmax(dim=1)[:, :CLASSES].max(dim=1)
    own = deltas[torch.arange(len(classes), device=classes.device), classes]
    boxes = clipped(regressed(proposals, own, (10, 10, 5, 5)), *size)
    kept = choose(boxes, scores, count, nms)
    attribute_scores, best = attributes[kept, :ATTRIBUTES].softmax(dim=1).max(dim=1)
    return Detected(features[kept], boxes[kept], classes[kept], scores[kept], best, attribute_scores)


class BottomUpExtractor:
    """Regions of pictures: 2,048 wide, with class, attribute and their probabilities."""

    width = 2048

    def __init__(self, model: BottomUp, name: str, detection: Detection, precision: Precision = "no") -> None:
        self.model, self.name, self.regions = model, name, detection.regions
        self._detection, self._precision = detection, precision

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Regions]:
        sizes = [resized(*picture.size, self._detection) for picture in pictures]
        with inference(self.model, self._precision):
            found = self.model(self._pixels(pictures, sizes), sizes, self._detection)
        return [_regions(seen, size) for seen, size in zip(found, sizes, strict=True)]

    def _pixels(self, pictures: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(B, 3, H, W). Resized by torch's bilinear interpolation without antialiasing, as the originals did (with OpenCV or torch)."""
        device = device_of(self.model)
        means = torch.tensor(MEANS_BGR, device=device)[:, None, None]
        batch = torch.zeros(len(pictures), 3, max(h for _, h in sizes), max(w for w, _ in sizes), device=device)
        for row, picture, (width, height) in zip(batch, pictures, sizes, strict=True):
            bgr = pixel_tensor(picture, device).flip(0)
            row[:, :height, :width] = F.interpolate(bgr[None], (height, width), mode="bilinear", align_corners=False)[0] - means
        return batch


def _regions(seen: Detected, size: tuple[int, int]) -> Regions:
    boxes = (seen.boxes / seen.boxes.new_tensor([*size, *size])).clamp(0, 1)
    told = (seen.features, boxes, seen.classes, seen.scores, seen.attributes, seen.attribute_scores)
    return Regions("", *(x.cpu().numpy() for x in told))


def load(
    checkpoint: str = PUBLISHED, preset: str = "bottom-up-800", regions: int = 36, precision: Precision = "no"
) -> BottomUpExtractor:
    """The extractor with the weights of a checkpoint: a folder (config.yaml, pytorch_model.bin), a file, or a name on the hub.

    Raises ValueError naming what does not fit: another architecture, missing or unknown weights, an unsafe pickle.
    """
    require_torchvision()
    source: Path = find_weights(checkpoint)
    check_config(source.parent / "config.yaml")
    model = BottomUp()
    load_named(model, read_tensors(source), str(source), OPTIONAL)
    detection = Detection(**{**vars(PRESETS[preset]), "regions": regions})
    return BottomUpExtractor(model, preset, detection, precision)
