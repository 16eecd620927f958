"""The model card of an export, a README.md in the layout of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

import satmip_jax
from satmip_jax.config.conversion import to_json
from satmip_jax.evaluation.model import Model
from satmip_jax.evaluation.protocols import main_scores
from satmip_jax.evaluation.results import (
    Score,
    format_score,
    is_fraction,
    is_worst,
    worst_group_name,
)
from satmip_jax.geolocation.calibration import Calibration
from satmip_jax.objectives import build_method

CARD_FILE = "README.md"
UNSTATED = "the publisher's"  # licence in the schema of own data that 0.2.0 prepared
MARKDOWN = "|<>`[]\\"  # structures a cell of a table
YAML = MARKDOWN + "#:\"'"  # structures a value of the header

USAGE = {
    "safetensors": """
`model.safetensors` holds all parameters, `config.json` the config of the training, `schema.json`
the statistics and vocabularies of its data. Names of parameters are their path in the model;
linear kernels are (inputs, outputs), and blocks are stacked on the first axis.

```python
import satmip_jax as sm

model = sm.load(".")  # this folder
features = model.embed_images(["image.jpg"])
```
""",
    "timm": """
The image encoder alone, in the layout of timm's VisionTransformer:

```python
import timm
model = timm.create_model("local-dir:.", pretrained=True).eval()  # this folder
```

Images are RGB in [0, 1], resized to a square of the model's size and normalized by `mean` and `std`
of `pretrained_cfg`.
""",
    "stablehlo": """
The image encoder alone, as a program of `jax.export` for CPUs, NVIDIA GPUs and TPUs, with its
parameters. It takes uint8 RGB images and normalizes them itself.

```python
import jax
program = jax.export.deserialize(open("image_encoder.stablehlo", "rb").read())
features = program.call(images)  # uint8 (n, side, side, 3)
```
""",
    "onnx": """
The image encoder alone, as an ONNX program in float32, with its parameters. It takes uint8 RGB
images and normalizes them itself.

```python
import onnxruntime
session = onnxruntime.InferenceSession("image_encoder.onnx")
(features,) = session.run(None, {"images": images})  # uint8 (n, side, side, 3)
```
""",
}

LIMITS = """
Intended use: features of satellite images of the kind that the model was trained on, for search,
clustering, and classifiers with few labels.

Limits: the model knows the sensors, resolutions, regions and seasons of its training data;
elsewhere its features may mean less. Metadata are a signal of the training: features can reveal
where and when an image was taken. Scores on images from the places of the training are higher than
on new places. Do not use it for decisions about persons, or where an error does harm.
"""


def write_card(
    model: Model,
    format: str,
    scores: Sequence[Score],
    half: bool,
    licence: str,
    calibration: Calibration | None = None,
) -> str:
    """Return the text of the card.

    Args:
        model: the exported model.
        format: one of `export.FORMATS`.
        scores: of the exported checkpoint.
        half: whether the parameters are stored in float16.
        licence: identifier of the licence of the weights; "" if it is not stated.
        calibration: of the exported checkpoint, if it is exported as well.
    """
    schema, config = model.schema, model.config
    header = ["---", f"library_name: {'timm' if format == 'timm' else 'satmip-jax'}"]
    header += [f"license: {_plain(licence, drop=YAML)}"] if licence else []
    header += ["tags:", "- remote-sensing", "- satellite-images", "- image-feature-extraction"]
    examples = ", ".join(f"{_plain(name)} {n:,}" for name, n in schema.splits.items())
    training = "unknown" if model.step is None else f"{model.step:,}"
    planned = f" of {model.planned:,}" if model.planned else ""
    facts = {
        "method": build_method(config).title,
        "image encoder": config.image.encoder,
        "images": f"{config.image.size} x {config.image.size} pixels, RGB",
        "training steps": training + planned,
        **({"training began with": _plain(config.image.init)} if config.image.init else {}),
        "training data": f"{_plain(schema.name)} (examples: {examples})",
        **_data_facts(model),
        "stored as": config.dtype if format == "stablehlo" else f"float{'16' if half else '32'}",
        "licence of the weights": _plain(licence) or "not stated; it depends on the training data",
        "written by": f"satmip_jax {satmip_jax.__version__}",
    }
    if model.towers.has_metadata:
        fields = schema.seen_fields(config.metadata.fields)
        facts["metadata fields"] = ", ".join(field.name for field in fields)
    if calibration is not None:
        on = f"{_plain(calibration.data)}, {_plain(calibration.split)}"
        facts["places"] = f"calibrated for `satmip locate` on {on}"
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return (
        "\n".join([*header, "---", "", f"# {model.name}", ""])
        + f"\n| | |\n|---|---|\n{table}\n\n## Use\n{USAGE[format]}\n"
        + f"## Scores\n\n{_score_table(scores)}\n\n## Intended use and limits\n{LIMITS}\n"
        + f"## Config\n\n```json\n{_public_config(model)}\n```\n"
    )


def _data_facts(model: Model) -> dict[str, str]:
    """Return licence of the training data, and their homepage where their source has one."""
    provenance = model.schema.provenance
    stated = {
        name: _plain(text)
        for name, text in (
            ("licence of the data", provenance.get("license")),
            ("homepage of the data", provenance.get("homepage")),
        )
        if isinstance(text, str) and text.strip() and text != UNSTATED
    }
    return {"licence of the data": "not stated", **stated}


def _public_config(model: Model) -> str:
    """Return the config without the folder of the data, a path of the training's machine."""
    lines = to_json(model.config).splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith('"dir":'))


def _score_table(scores: Sequence[Score]) -> str:
    if not scores:
        return "None: this checkpoint was not evaluated. `satmip evaluate` computes them."
    shown = main_scores(scores)
    metrics = list(dict.fromkeys(row.metric for row in shown))
    groups: dict[tuple[str, ...], dict[str, Score]] = {}
    for row in shown:
        names = row.dataset, row.split, row.features, row.protocol
        groups.setdefault((*names, row.data or ""), {})[row.metric] = row
    titles = [_title(metric) for metric in metrics]
    columns = ["data", "split", "features", "protocol", *titles, "n"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for key, of_group in groups.items():
        cells = [_cell(of_group.get(metric)) for metric in metrics]
        examples = max(row.n for row in of_group.values())
        lines.append(f"| {' | '.join([*map(_plain, key[:4]), *cells])} | {examples:,} |")
    if len(shown) < len(scores):
        lines += ["", f"These are {len(shown)} of {len(scores)} scores; `evaluation.json` has all."]
    return "\n".join(lines)


def _title(metric: str) -> str:
    return _plain(metric.replace("_", " ")) + (" %" if is_fraction(metric) else "")


def _cell(row: Score | None) -> str:
    """Return a score; of a worst group with its name."""
    if row is None:
        return ""
    name = f" ({_plain(worst_group_name(row))})" if worst_group_name(row) else ""
    return format_score(row.metric, row.value) + (name if is_worst(row.metric) else "")


def _plain(text: str, drop: str = MARKDOWN) -> str:
    """Return a text, which may be untrusted, without characters that structure Markdown or YAML.

    Args:
        text: for a cell of a table, or a value in the header.
        drop: characters that structure the place where the text stands.
    """
    kept = "".join(c if c.isprintable() and c not in drop else " " for c in text)
    return " ".join(kept.split())[:200]
