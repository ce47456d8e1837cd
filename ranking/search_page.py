"""A page to search on, by text or picture, made with gradio. All that comes from a corpus or a user is escaped here.

The page asks its own server alone; pictures that are shown to it are kept until it ends.
"""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from corpora.corpus import Corpus
from ranking.search import Hit, Query, Searched, Searcher, read_picture, search
from ranking.search_sheet import heading

SIDE = 320
"""Pixels of a thumbnail's longer side."""
MOST = 100
"""Hits that can be asked for."""
STYLE = """
.gradio-container { width: 100%; max-width: 1200px !important; margin: 0 auto !important; }
.results h2 { margin: 12px 0 4px; font-size: 17px; }
.results ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 14px; padding: 0; margin: 8px 0 24px; list-style: none; }
.results li { margin: 0; min-width: 0; overflow-wrap: anywhere; font-size: 13px; line-height: 1.35; }
.results img { width: 100%; height: 150px; object-fit: contain; margin: 0 0 6px; background: var(--background-fill-secondary); border-radius: 4px; }
.results p { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 6; overflow: hidden; margin: 0; }
.results small { display: block; font-size: 12px; opacity: 0.8; }
"""


@contextmanager
def serving(models: Sequence[Searcher], second: Searcher | None, top: int, shortlist: int, host: str, port: int) -> Iterator[str]:
    """The page's address; it is served within the block. `port` 0: the first free one from 7860 on."""
    with TemporaryDirectory(prefix="search-") as shown:
        os.environ |= {"GRADIO_TEMP_DIR": shown, "GRADIO_ANALYTICS_ENABLED": "False"}  # read when gradio is imported
        page = _page(_gradio(), models, second, top, shortlist)
        quiet = {"quiet": True, "share": False, "run_history": False, "footer_links": [], "css": STYLE, "max_file_size": "20mb"}
        try:
            _, address, _ = page.launch(server_name=host, server_port=port or None, prevent_thread_lock=True, **quiet)
        except OSError as error:
            raise ValueError(f"--host {host} --port {port}: the page cannot listen there ({error})") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(models: Sequence[Searcher], second: Searcher | None, top: int, shortlist: int, host: str, port: int) -> None:
    """Serve the page until the process is ended."""
    with serving(models, second, top, shortlist, host, port) as address:
        print(f"search page: {address}", flush=True)
        threading.Event().wait()


def _gradio() -> Any:
    try:
        return import_module("gradio")
    except ImportError as error:
        raise ValueError(f"--serve needs gradio ({error}): pip install -c constraints.txt -e '.[demo]'") from None


def _page(gr: Any, models: Sequence[Searcher], second: Searcher | None, top: int, shortlist: int) -> Any:
    corpus, split = models[0].corpus, models[0].split
    names = [f"{model.name}: {model.checkpoint}" for model in models]
    one_at_a_time = threading.Lock()  # models and files are shared by all visitors

    def answer(model: int, again: bool, count: float, text: str = "", picture: str | None = None, image: str = "") -> str:
        try:
            query = Query(text, image.strip(), read_picture(Path(picture)) if picture else None)
            if query.image and query.image not in corpus.images:
                raise ValueError(f"no image {query.image!r} in {corpus.name}")
            with one_at_a_time:
                helper = second if again else None
                found = search(models[model], query, min(MOST, max(1, int(count))), helper, shortlist)
                return "".join(
                    listed(corpus, heading(models[model], helper, query, kind, hits), hits) for kind, hits in found.items()
                )
        except ValueError as error:
            return f'<p role="alert">{escape(str(error))}</p>'

    def by_text(text: str, model: int, again: bool, count: float) -> str:
        return answer(model, again, count, text=text)

    def by_picture(picture: str | None, image: str, model: int, again: bool, count: float) -> str:
        return answer(model, again, count, picture=picture, image=image)

    with gr.Blocks(title=f"Search {corpus.name}", analytics_enabled=False) as page:
        gr.HTML(f"<h1>Search {escape(corpus.name)}</h1><p>{_counts(corpus, split.name)}</p>")
        with gr.Tab("By text"):
            text = gr.Textbox(label="Text", placeholder="two dogs running", elem_id="text")
            text_button = gr.Button("Search", variant="primary", elem_id="by-text")
        with gr.Tab("By picture"):
            sources = ["upload", "clipboard"]
            picture = gr.Image(label="Picture", type="filepath", image_mode=None, sources=sources, height=240, elem_id="picture")
            image = gr.Textbox(label="or the id of an image of the corpus", elem_id="image")
            picture_button = gr.Button("Search", variant="primary", elem_id="by-picture")
        with gr.Row():
            choices = [(name, number) for number, name in enumerate(names)]
            model = gr.Dropdown(choices, value=0, label="Model", scale=3, min_width=320, elem_id="model")
            label = f"Re-rank the best {shortlist} with {second.name}" if second else "Re-rank (start with --rerank)"
            again = gr.Checkbox(
                second is not None, label=label, interactive=second is not None, scale=2, min_width=200, elem_id="rerank"
            )
            count = gr.Number(top, label="How many", minimum=1, maximum=MOST, precision=0, scale=1, min_width=90, elem_id="top")
        results = gr.HTML(elem_id="results", elem_classes="results")
        options: dict[str, Any] = {"outputs": results, "api_visibility": "private", "trigger_mode": "always_last"}
        gr.on([text.submit, text_button.click], by_text, [text, model, again, count], **options)
        gr.on([image.submit, picture_button.click], by_picture, [picture, image, model, again, count], **options)
    return page


def _counts(corpus: Searched, split: str) -> str:
    counts = corpus.info["splits"][split]
    return escape(f"split {split}: {counts['images']:,} images, {counts['captions']:,} captions")


def listed(corpus: Corpus, title: str, hits: Sequence[Hit]) -> str:
    """A heading and the hits as a list of pictures with ranks, scores, ids and texts, in HTML."""
    return f"<h2>{escape(title)}</h2><ol>{''.join(_item(corpus, rank, hit) for rank, hit in enumerate(hits, 1))}</ol>"


def _item(corpus: Corpus, rank: int, hit: Hit) -> str:
    picture = f'<img alt="{escape(hit.image)}" src="{_thumbnail(corpus, hit.image)}">' if hit.image else ""
    scores = f"{hit.score:.4f}" if hit.second is None else f"{hit.second:.4f} (before {hit.score:.4f})"
    text, of_id = escape(hit.text), escape(hit.id)
    return f'<li>{picture}<p title="{text}"><b>{rank}</b> {text}</p><small>{of_id}</small><small>{scores}</small></li>'


def _thumbnail(corpus: Corpus, image_id: str) -> str:
    small, file = corpus.images.picture(image_id), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
