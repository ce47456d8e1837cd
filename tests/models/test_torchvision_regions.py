"""torchvision's Faster R-CNN as an extractor: exactly R regions of every picture, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detector_environment import detector
from PIL import Image

from models.torchvision_regions import FasterRcnnExtractor, faster_rcnn, load


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    shapes = ((60, 80), (80, 60), (60, 80), (30, 90))
    return [
        Image.fromarray(generator.integers(0, 256, (*shape, 3)).astype(np.uint8)).resize((shape[1], shape[0])) for shape in shapes
    ]


@pytest.fixture(scope="module")
def extractor() -> FasterRcnnExtractor:
    torch.manual_seed(0)
    model = faster_rcnn(50)
    model.transform.min_size, model.transform.max_size = (96,), 160
    return FasterRcnnExtractor(model, 50)


@detector
def test_neighbours_change_nothing(extractor):
    together, alone = extractor(pictures()), [extractor([picture])[0] for picture in pictures()]
    for a, b in zip(together, alone, strict=True):
        assert a.features.shape == (50, 1024)
        assert a.boxes.shape == (50, 4)
        assert a.boxes.min() >= 0 and a.boxes.max() <= 1 and (a.boxes[:, 2:] > a.boxes[:, :2]).all()
        assert np.allclose(a.features, b.features, atol=5e-3)  # of up to 30
        assert np.allclose(a.boxes, b.boxes, atol=1e-4)
        assert a.classes is None


@detector
def test_features_are_what_the_hook_gave(extractor):
    """The second fully connected layer's output, of one picture run by torchvision itself."""
    seen = []
    handle = extractor.model.roi_heads.box_head.fc7.register_forward_hook(lambda *args: seen.append(args[2].relu()))
    picture = pictures()[0]
    with torch.inference_mode():
        extractor.model([torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255])
    handle.remove()
    assert np.allclose(extractor([picture])[0].features, seen[0].numpy(), atol=1e-5)


@detector
def test_too_few_proposals_are_repeated(extractor, monkeypatch):
    monkeypatch.setattr(extractor.model.rpn, "_post_nms_top_n", {"training": 3, "testing": 3})
    few = extractor(pictures()[:2])
    assert [len(np.unique(regions.boxes, axis=0)) for regions in few] == [3, 3]
    assert few[0].features.shape == (50, 1024)
    assert np.array_equal(few[0].features[0], few[0].features[48])
    monkeypatch.setattr(extractor.model.rpn, "_post_nms_top_n", {"training": 0, "testing": 0})
    none = extractor(pictures()[:1])
    assert np.allclose(none[0].boxes, [0, 0, 1, 1], atol=0.01)


@detector
def test_weights_of_the_published_layout(tmp_path):
    """Frozen normalisations have no counters, and a file may have them all the same."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    model = faster_rcnn(50)
    weights = model.state_dict()
    assert len(weights) == 295
    published = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    assert sum(value.numel() for value in model.parameters()) == published == 41_755_286
    torch.save({**weights, "backbone.body.bn1.num_batches_tracked": torch.tensor(3)}, tmp_path / "w.pth")
    assert load(str(tmp_path / "w.pth"), 7).regions == 7
    with pytest.raises(ValueError, match="no such file"):
        load("")
