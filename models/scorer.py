"""Opens a checkpoint of any model here: what it is, is read from the checkpoint itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from corpora.corpus import Corpus
from models import clip, guided, lxmert, sentence_matcher, swin, tern
from models.pretrained import check_folder, one_error
from models.protocols import Inputs


def open_scorer(checkpoint: str, corpus: Corpus, regions: str = "") -> tuple[str, Any, Inputs]:
    """The model's name, the model (a torch module that is a RetrievalModel), and what it reads of the corpus.

    `regions` by extractor name, for a model that reads them. A checkpoint that scores no pairs is a ValueError.
    """
    folder = Path(checkpoint)
    if (folder / guided.FILE).is_file():
        model, inputs = guided.load(checkpoint, corpus, regions)
        return model.kind.upper(), model, inputs
    if (folder / sentence_matcher.FILE).is_file():
        return "sentence matcher", *sentence_matcher.load(checkpoint, corpus.images)
    if swin.is_checkpoint(checkpoint):
        return "image encoder", *swin.load(checkpoint, corpus.images)
    if (folder / tern.FILE).is_file():
        return "TERN", *tern.load(checkpoint, corpus.regions(regions))
    check_folder(checkpoint)
    with one_error(checkpoint, "configuration"):
        kind = AutoConfig.from_pretrained(checkpoint).model_type
    if kind == "clip":
        return "CLIP", *clip.load(checkpoint, corpus.images)
    if kind == "lxmert":
        return "LXMERT", *lxmert.load(checkpoint, corpus.regions(regions), "match", trained=True)
    raise ValueError(
        f"{checkpoint}: a {kind} checkpoint; give one of CLIP, LXMERT, DE, SIAM, TERN, the sentence matcher or an image encoder"
    )
