# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train and evaluate
#
# From raw images with metadata to a score: draw a synthetic data set, prepare it, train SatMIPS,
# and compare the features with what needs no training. It takes a few minutes on a CPU, and
# downloads nothing.
#
# Everything is small: scenes of 32 pixels, a model of a million parameters, seconds to minutes of
# training. The steps are those of a real run; the numbers are not.

# %%
import json
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection

SCENES = {"train": 2000, "val": 500}
IMAGES = 10_000  # length of the training, in images seen: five times the train split
SIZE = 32  # pixels, side of an image
ENCODER = "nano/8"  # a ViT of 4 blocks, 128 wide, on patches of 8 pixels
BATCH = 128  # images per step

# %% [markdown]
# ## Data
#
# The synthetic data set has the layout of fMoW: JPEGs, each with a JSON file of 15 metadata
# fields. As in fMoW, what stands at a place depends on its climate and part of the world, on the
# season, and on how much ground an image shows. A few of the values are missing or unusable.

# %%
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.synthetic.dataset import write_dataset

options = {**SCENES, "size": 64}
write_dataset("scenes", **options, workers=0, progress=False)
source = open_source("synthetic", ["scenes"], **options)

# %% [markdown]
# `prepare` turns a source into shards: square JPEGs, parsed metadata, and the statistics of every
# field. What cannot be used is counted. `workers=0` works in this process; by default there is one
# process per core.

# %%
report = prepare(source, "shards", image_size=SIZE, workers=0, progress=False)
print(dict(report.splits), "unusable images:", len(report.bad))
missing = sum(count for _, _, count in report.problems.rows())
print("metadata values that are missing or unusable:", missing)

# %%
from satmip_jax.data.shard_dataset import ShardDataset

train_split = ShardDataset("shards", "train")
class_names = train_split.schema.classes
records = [train_split[i] for i in range(len(train_split))]

figure, axes = plt.subplots(2, 5, figsize=(8, 3.7), layout="constrained")
for label, axis in enumerate(axes.flat):
    record = next(record for record in records if record["label"] == label)
    pixels = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
    axis.imshow(pixels)
    axis.set(xticks=[], yticks=[])
    axis.set_title(class_names[label].replace("_", " "), fontsize=7)
figure.suptitle("A scene of each class", fontsize=9)
plt.show()

for name, value in records[0]["metadata"].values.items():
    print(f"{name:16} {value}")

# %% [markdown]
# Metadata say something about the class: swimming pools and solar farms stand elsewhere than lakes
# and wind farms.

# %%
from satmip_jax.geography.land import lines

SHOWN = ("lake_or_pond", "solar_farm", "stadium", "wind_farm")
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
axis.add_collection(LineCollection(lines("coasts"), colors="#9aa5ad", linewidths=0.5))
for name, marker in zip(SHOWN, "os^D", strict=True):
    found = [
        record["metadata"].values["location"]
        for record in records
        if class_names[record["label"]] == name and "location" in record["metadata"].values
    ]
    axis.scatter(*np.array(found).T, s=10, marker=marker, label=name.replace("_", " "))
axis.set(xlim=(-180, 180), ylim=(-58, 80), xlabel="degrees east", ylabel="degrees north")
axis.legend(fontsize=8, loc="lower left")
axis.set_title("Where four of the classes are", fontsize=9)
plt.show()

# %% [markdown]
# The probabilities of the generator are known, so there is a ceiling: the most probable class
# given all metadata. No encoder of metadata can be expected to do better.

# %%
from satmip_jax.sources.synthetic.bayes import accuracy

ceiling, without_width = accuracy(seed=0, split="val", images=SCENES["val"])
print(
    f"ceiling of metadata: {ceiling:.1%}; without fields that reveal the width: {without_width:.1%}"
)

# %% [markdown]
# ## Training
#
# A config has every option; `quickstart.py` is the smallest one in the package. The images are
# trained on without their labels.

# %%
from satmip_jax.config.loading import config_folder, load_config
from satmip_jax.training.loop import train

config = load_config(str(config_folder() / "quickstart.py"))
config.data.dir = str(Path("shards").resolve())
config.data.workers = 0  # decode in threads of this process
config.image.size = SIZE
config.image.encoder = ENCODER
config.optimizer.batch_size = BATCH
config.optimizer.images = IMAGES
config.checkpoint.every = 1000  # steps: only the last one
config.log_every = 5
state = train(config, "runs/satmips")
print("steps:", int(state.step))

# %% [markdown]
# `train` resumes if it is called again. It logs to `metrics.jsonl`. SatMIPS adds two tasks, each
# to find the match among the images of the batch: for a view of an image its other view (SimCLR),
# and for an image its metadata (SatMIP).

# %%
log = [json.loads(line) for line in Path("runs/satmips/metrics.jsonl").read_text().splitlines()]
steps = [row["step"] for row in log]
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
axes[0].plot(steps, [row["loss"] for row in log], color="#0072B2")
axes[0].set_ylabel("loss, nats")
for name, colour in (("simclr_accuracy", "#E69F00"), ("satmip_accuracy", "#009E73")):
    axes[1].plot(steps, [100 * row[name] for row in log], color=colour, label=name.split("_")[0])
axes[1].set_ylabel("matches found in the batch, %")
axes[1].legend(fontsize=8)
for axis in axes:
    axis.set_xlabel("step")
plt.show()

# %% [markdown]
# ## Evaluation
#
# The features are frozen; a validation image gets the class that most of its five nearest training
# images have. To know what the training has added, the same encoder is scored before it
# (`init="random"`), and so are statistics of the colours and the raw metadata fields.

# %%
from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline

quick = {"protocols": ["knn5"], "block": 0}
scores = {
    "colours": evaluate_baseline("colour", "shards", **quick),
    "fields": evaluate_baseline("fields", "shards", **quick),
    "untrained": evaluate("runs/satmips", "shards", init="random", **quick),
    "SatMIPS": evaluate("runs/satmips", "shards", **quick),
}
rows = [(name, row) for name, part in scores.items() for row in part if row.metric == "accuracy"]
for name, row in rows:
    print(f"{name:10} {row.features:9} {row.value:6.1%}  ({row.low:.1%} to {row.high:.1%})")

# %%
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
colours = {"image": "#0072B2", "metadata": "#E69F00", "both": "#009E73"}
for position, (_, row) in enumerate(rows):
    error = [[100 * (row.value - row.low)], [100 * (row.high - row.value)]]
    axis.barh(position, 100 * row.value, xerr=error, color=colours[row.features], capsize=2)
axis.axvline(100 * ceiling, color="#333333", linestyle="--", linewidth=1)
axis.text(100 * ceiling, -0.7, "ceiling of metadata", fontsize=7, ha="center")
axis.axvline(10, color="#333333", linestyle=":", linewidth=1)
axis.text(10, -0.7, "chance", fontsize=7, ha="center")
axis.set_yticks(range(len(rows)), [f"{name}, {row.features}" for name, row in rows], fontsize=8)
axis.set_ylim(len(rows) - 0.4, -1.2)
axis.set_xlabel("kNN accuracy, % (bar: 95 % interval over the validation images)")
plt.show()

# %% [markdown]
# ## What this shows, and what it does not
#
# * Training has added something: the image encoder rises from 31 to 40 %, and the intervals do not
#   overlap.
# * It is no more than the statistics of the colours have, 39 %. And the metadata encoder, at 42 %,
#   is level with the raw fields, and far below the ceiling of 70 %. A minute of training is not
#   enough to say what SatMIPS can do.
# * Image and metadata together are best, here as in longer runs.
# * One seed and 500 validation images: the intervals of 4 points on each side cover the choice of
#   the images, not another seed. [Compare methods](compare_methods.ipynb) has two.
#
# ## Next
#
# * Raise `IMAGES`, `SIZE` and `SCENES`, or run `satmip quickstart`, which trains three times as
#   long on images of 64 pixels and writes a report; [results](../results.md) has its numbers.
# * [Images with a table](../howto/own-images.md) does the same with your data.
# * [Protocols and pitfalls](../explanation/protocols.md): what else a score depends on.
