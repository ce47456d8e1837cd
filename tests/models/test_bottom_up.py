"""The detector's tensors, its backbone against torchvision's blocks, and real photos in batches of any make-up."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detector_environment import detector
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from corpora.regions import Regions, check_regions
from models.bottom_up import BottomUp, BottomUpExtractor, load
from models.bottom_up_boxes import Detection
from models.bottom_up_weights import check_config, find_weights, read_vocabulary

SMALL = Detection(short_side=144, long_side=240, candidates=600, proposals=40)
"""Real widths at a small scale: 2 s a picture."""


@pytest.fixture(scope="module")
def model() -> BottomUp:
    """Random weights; the normalisations have statistics of their own, or they would hide behind zeros and ones."""
    torch.manual_seed(0)
    model = BottomUp()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.2)
            module.bias.normal_(0, 0.1)
    return model


@pytest.fixture(scope="module")
def photos(test_data: Path) -> list[Image.Image]:
    files = sorted((test_data / "bottom-up-coco10" / "images").glob("*.jpg"))
    if len(files) != 10:
        pytest.skip(f"no 10 photos in {test_data}/bottom-up-coco10/images")
    return [Image.open(file).convert("RGB") for file in files]


# Tensors


def test_640_tensors_and_65_439_870_parameters(model):
    tensors = model.state_dict()
    assert len(tensors) == 640
    assert sum(name.startswith("backbone.") for name in tensors) == 564
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters + tensors["proposal_generator.anchor_generator.cell_anchors.0"].numel() == 65_439_870


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.stem.conv1.weight", (64, 3, 7, 7)),
        ("backbone.stem.conv1.norm.num_batches_tracked", ()),
        ("backbone.res2.0.shortcut.norm.running_var", (256,)),
        ("backbone.res4.22.conv3.weight", (1024, 256, 1, 1)),
        ("proposal_generator.anchor_generator.cell_anchors.0", (12, 4)),
        ("proposal_generator.rpn_head.conv.weight", (512, 1024, 3, 3)),
        ("proposal_generator.rpn_head.objectness_logits.weight", (12, 512, 1, 1)),
        ("proposal_generator.rpn_head.anchor_deltas.weight", (48, 512, 1, 1)),
        ("roi_heads.res5.2.conv2.norm.bias", (512,)),
        ("roi_heads.box_predictor.cls_score.weight", (1601, 2048)),
        ("roi_heads.box_predictor.bbox_pred.weight", (6400, 2048)),
        ("roi_heads.box_predictor.cls_embedding.weight", (1601, 256)),
        ("roi_heads.box_predictor.fc_attr.weight", (512, 2304)),
        ("roi_heads.box_predictor.attr_score.weight", (401, 512)),
    ],
)
def test_names_and_shapes_of_the_public_checkpoint(model, name, shape):
    assert model.state_dict()[name].shape == shape


def test_the_last_stage_keeps_the_map_and_is_dilated(model):
    strides = {conv.stride for conv in model.roi_heads.res5.modules() if isinstance(conv, nn.Conv2d)}
    dilations = {
        conv.dilation for conv in model.roi_heads.res5.modules() if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)
    }
    assert (strides, dilations) == ({(1, 1)}, {(2, 2)})


# The backbone


@torch.inference_mode()
def test_padding_beside_a_picture_changes_nothing(model):
    """Sizes of every remainder: the stem, its pool and two strides round in their own ways."""
    torch.manual_seed(1)
    for height, width in ((33, 70), (47, 64), (50, 61), (64, 34), (79, 35)):
        picture = torch.randn(1, 3, height, width) * 50
        alone, whole = model.backbone(picture, torch.ones(1, 1, height, width, dtype=torch.bool))
        assert whole.all()
        padded, inside = torch.zeros(2, 3, 90, 110), torch.zeros(2, 1, 90, 110, dtype=torch.bool)
        padded[0, :, :height, :width], inside[0, :, :height, :width] = picture, True
        padded[1], inside[1] = 50, True
        features, places = model.backbone(padded, inside)
        mine = features[0, :, : alone.shape[2], : alone.shape[3]]
        assert places[0].sum() == alone.shape[2] * alone.shape[3]
        assert torch.allclose(mine, alone[0], atol=1e-4)
        assert features[0].abs().sum() == pytest.approx(float(alone.abs().sum()), rel=1e-4)  # zero beyond


@detector
@torch.inference_mode()
def test_the_blocks_are_torchvisions(model):
    """Its ResNet-101 with Caffe's stride and pool, and a dilated last stage, under our weights."""
    from torchvision.models import resnet101

    theirs = resnet101(weights=None).eval()
    theirs.maxpool = nn.MaxPool2d(3, 2, 0, ceil_mode=True)
    for stage in (theirs.layer2, theirs.layer3):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    for block in theirs.layer4:
        block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (2, 2), (2, 2)
    theirs.layer4[0].downsample[0].stride = (1, 1)
    theirs.load_state_dict(renamed(model, theirs))
    pixels = torch.randn(2, 3, 101, 90, generator=torch.Generator().manual_seed(3)) * 50
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(pixels))))
    expected = theirs.layer3(theirs.layer2(theirs.layer1(expected)))
    ours, _ = model.backbone(pixels, torch.ones(2, 1, 101, 90, dtype=torch.bool))
    assert torch.allclose(ours, expected, atol=1e-4)
    for block in model.roi_heads.res5:
        ours = block(ours)
    assert torch.allclose(ours, theirs.layer4(expected), atol=1e-4)


def renamed(model: BottomUp, theirs: nn.Module) -> dict[str, torch.Tensor]:
    """Our tensors under torchvision's names."""
    ours, tensors = model.state_dict(), theirs.state_dict()
    for name in tensors:
        stage, _, rest = name.partition(".")
        if stage.startswith("layer"):
            number = int(stage[5:]) + 1
            rest = rest.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
            place = f"backbone.res{number}" if number < 5 else "roi_heads.res5"
            for i in (1, 2, 3):
                rest = rest.replace(f"bn{i}", f"conv{i}.norm")
            tensors[name] = ours[f"{place}.{rest}"]
        elif stage in ("conv1", "bn1"):
            tensors[name] = ours[f"backbone.stem.conv1.{'norm.' if stage == 'bn1' else ''}{rest}"]
    return tensors


# Real photos


def close(a: Regions, b: Regions) -> None:
    assert np.allclose(a.features, b.features, atol=1e-3)
    assert np.allclose(a.boxes, b.boxes, atol=1e-4)
    assert np.array_equal(a.classes, b.classes)
    assert np.array_equal(a.attributes, b.attributes)
    assert np.allclose(a.scores, b.scores, atol=1e-5)


@pytest.fixture(scope="module")
def in_fours(model: BottomUp, photos: list[Image.Image]) -> list[Regions]:
    extractor = BottomUpExtractor(model, "bottom-up", SMALL)
    return [regions for start in range(0, 10, 4) for regions in extractor(photos[start : start + 4])]


@detector
def test_ten_photos_give_36_regions_each(in_fours):
    assert len(in_fours) == 10
    for number, regions in enumerate(in_fours):
        assert regions.features.shape == (36, 2048)
        assert regions.boxes.shape == (36, 4)
        assert regions.boxes.min() >= 0 and regions.boxes.max() <= 1
        assert (regions.boxes[:, 2:] >= regions.boxes[:, :2]).all()
        assert regions.classes.min() >= 0 and regions.classes.max() < 1600
        assert regions.attributes.min() >= 0 and regions.attributes.max() < 400
        assert (regions.features >= 0).all() and regions.features.std() > 0.1
        assert (regions.scores > 0).all() and (regions.scores < 1).all()
        check_regions(regions._replace(id=str(number)), exact=False)
    assert len({regions.features.tobytes() for regions in in_fours}) == 10


@detector
def test_a_batch_of_one_gives_the_same(model, photos, in_fours):
    extractor = BottomUpExtractor(model, "bottom-up", SMALL)
    for number in (0, 1, 2, 8):
        close(extractor([photos[number]])[0], in_fours[number])


@detector
def test_other_neighbours_give_the_same(model, photos, in_fours):
    extractor = BottomUpExtractor(model, "bottom-up", SMALL)
    wide, tall = Image.new("RGB", (300, 30), "red"), Image.new("RGB", (9, 200), "blue")
    found = extractor([wide, photos[5], tall])
    close(found[1], in_fours[5])
    assert all(regions.features.shape == (36, 2048) for regions in found)


@detector
def test_bf16_and_fewer_regions(model, photos):
    few = Detection(**{**vars(SMALL), "regions": 4})
    (regions,) = BottomUpExtractor(model, "bottom-up", few, "bf16")(photos[:1])
    assert regions.features.dtype == np.float32
    assert regions.features.shape == (4, 2048)
    features = torch.rand(1, 1024, 9, 9, generator=torch.Generator().manual_seed(0))
    boxes = [torch.tensor([[0.0, 0, 90, 90], [20, 30, 60, 140]])]
    with torch.inference_mode():
        exact = model.roi_heads(features, boxes)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.roi_heads(features, boxes)
    assert 1e-4 < (rounded - exact).abs().max() / exact.abs().max() < 0.03


# Checkpoints


@pytest.fixture
def folder(model: BottomUp, tmp_path: Path) -> Path:
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


@detector
def test_load_by_name(model, folder, tmp_path):
    extractor = load(str(folder), "bottom-up-600", regions=10)
    assert (extractor.name, extractor.regions, extractor.width) == ("bottom-up-600", 10, 2048)
    assert torch.equal(extractor.model.backbone.res4[5].conv2.weight, model.backbone.res4[5].conv2.weight)
    kept = {name: value for name, value in model.state_dict().items() if "num_batches" not in name and "anchors" not in name}
    torch.save({"model": kept}, folder / "detectron2.pth")  # as detectron2 leaves it
    assert load(str(folder / "detectron2.pth")).regions == 36
    del kept["roi_heads.box_predictor.attr_score.bias"]
    torch.save({"model": kept}, folder / "detectron2.pth")
    with pytest.raises(ValueError, match=r"1 missing: roi_heads\.box_predictor\.attr_score\.bias"):
        load(str(folder / "detectron2.pth"))


PUBLIC = {
    "model": {"max_pool": True, "pixel_mean": [102.9801, 115.9465, 122.7717], "pixel_std": [1.0, 1.0, 1.0]},
    "anchor_generator": {"sizes": [[64, 128, 256, 512]], "aspect_ratios": [[0.5, 1.0, 2.0]], "offset": 0},
    "roi_box_head": {"pooler_resolution": 14, "num_attrs": 400, "res5halve": False, "attr": True},
    "resnets": {"depth": 101, "stride_in_1x1": True},
    "input": {"format": "BGR", "min_size_test": 800},
}


def test_a_configuration_of_another_detector_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    check_config(path)  # there need be none
    path.write_text(yaml.safe_dump(PUBLIC))
    check_config(path)
    other = {**PUBLIC, "resnets": {"depth": 50}, "roi_box_head": {"pooler_resolution": 7}}
    path.write_text(yaml.safe_dump(other))
    with pytest.raises(ValueError, match=r"roi_box_head\.pooler_resolution 7 \(here 14\); resnets\.depth 50 \(here 101\)"):
        check_config(path)
    path.write_text("model: [")
    with pytest.raises(ValueError, match="cannot be read"):
        check_config(path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match="cannot be read"):
        check_config(path)


def test_where_weights_are_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        find_weights(str(tmp_path))
    (tmp_path / "pytorch_model.bin").touch()
    assert find_weights(str(tmp_path)) == tmp_path / "pytorch_model.bin"
    assert find_weights(str(tmp_path / "pytorch_model.bin")) == tmp_path / "pytorch_model.bin"
    for nowhere in ("weights", "./owner/name", "/owner/name", "a/b/c"):
        with pytest.raises(ValueError, match="no such file or folder"):
            find_weights(nowhere)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    import huggingface_hub

    def refuse(*_: str) -> str:
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match=r"unc-nlp/frcnn-vg-finetuned: cannot be fetched .*\(no network\); fetch config\.yaml"):
        find_weights("unc-nlp/frcnn-vg-finetuned")


def test_vocabulary(test_data, tmp_path):
    folder = test_data / "bottom-up-coco10"
    classes, attributes = read_vocabulary(folder)
    assert (len(classes), len(attributes)) == (1600, 400)
    assert not any("," in name for name in (*classes, *attributes))
    shutil.copy(folder / "objects_vocab.txt", tmp_path)
    with pytest.raises(ValueError, match=r"attributes_vocab\.txt: cannot be read"):
        read_vocabulary(tmp_path)
    (tmp_path / "attributes_vocab.txt").write_text("red\nblue\n")
    with pytest.raises(ValueError, match="2 lines, expected 400"):
        read_vocabulary(tmp_path)


def test_without_torchvision_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match=r"needs torchvision .*setup\.sh detector"):
        load("weights")
