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
# # Compare methods
#
# SimCLR learns from images alone, SatMIP from images and their metadata, and SatMIPS from both
# tasks at once. Here you train the three on the same synthetic scenes, for the same number of
# images, and ask two questions: are their features better than features without training, and do
# the methods differ by more than chance? It takes a few minutes on a CPU, and downloads nothing.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt

SEEDS = {"simclr": (0,), "satmip": (0,), "satmips": (0, 1)}  # of the runs of each method
SCENES = {"train": 2000, "val": 500}
IMAGES = 10_000  # length of each training, in images seen
SIZE = 32  # pixels, side of an image
ENCODER = "nano/8"  # a ViT of 4 blocks, 128 wide, on patches of 8 pixels
BATCH = 128  # images per step

# %% [markdown]
# ## The same data for all
#
# [Train and evaluate](train_and_evaluate.ipynb) explains these steps.

# %%
from satmip_jax.prepare.run import prepare
from satmip_jax.sources.registry import open_source
from satmip_jax.sources.synthetic.dataset import write_dataset

options = {**SCENES, "size": 64}
write_dataset("scenes", **options, workers=0, progress=False)
source = open_source("synthetic", ["scenes"], **options)
print(dict(prepare(source, "shards", image_size=SIZE, workers=0, progress=False).splits))

# %% [markdown]
# ## Train
#
# The configs differ in the method alone, and the last one in the seed, which draws the initial
# values and the order of the images. `vary` returns a changed copy, `differences` says what
# changed.

# %%
from satmip_jax.config.conversion import differences, vary
from satmip_jax.config.loading import config_folder, load_config
from satmip_jax.training.loop import train

base = load_config(str(config_folder() / "quickstart.py"))
base = vary(
    base,
    {
        "data.dir": str(Path("shards").resolve()),
        "data.workers": 0,  # decode in threads of this process
        "image.size": SIZE,
        "image.encoder": ENCODER,
        "optimizer.batch_size": BATCH,
        "optimizer.images": IMAGES,
        "checkpoint.every": 1000,  # steps: only the last one
        "log_every": 5,
    },
)
NAMES = {"simclr": "SimCLR", "satmip": "SatMIP", "satmips": "SatMIPS"}
configs = {
    NAMES[method] + f", seed {seed}" * (seed > 0): vary(base, {"method.name": method, "seed": seed})
    for method, seeds in SEEDS.items()
    for seed in seeds
}
for name, config in configs.items():
    print(f"{name}: {', '.join(differences(base, config)) or 'as the base'}")
    train(config, f"runs/{name}")

# %%
COLOURS = {"simclr": "#E69F00", "satmip": "#009E73", "satmips": "#0072B2"}
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, config in configs.items():
    lines = Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    style = {"color": COLOURS[config.method.name], "linestyle": ":" if config.seed else "-"}
    axis.plot([row["step"] for row in log], [row["loss"] for row in log], label=name, **style)
axis.set_xlabel("step")
axis.set_ylabel("loss, nats")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# The losses cannot be compared with each other: each is of another task, and that of SatMIPS is a
# sum of two. Methods are compared by what their features are good for.
#
# ## Score
#
# All are scored alike: by the five nearest training images, on places that no training image is
# from. Beside them stand features that need no training.

# %%
from satmip_jax.evaluation.evaluate import evaluate, evaluate_baseline

quick = {"protocols": ["knn5"], "block": 0}
scores = {
    "colours": evaluate_baseline("colour", "shards", **quick),
    "patches": evaluate_baseline("patches", "shards", **quick),
    "untrained": evaluate("runs/SatMIPS", "shards", init="random", **quick),
}
scores |= {name: evaluate(f"runs/{name}", "shards", **quick) for name in configs}
table = {
    (name, row.features): row
    for name, rows in scores.items()
    for row in rows
    if row.metric == "accuracy"
}
print(f"{'':16}" + "".join(f"{kind:>10}" for kind in ("image", "metadata", "both")))
for name in scores:
    cells = [table.get((name, kind)) for kind in ("image", "metadata", "both")]
    print(f"{name:16}" + "".join(f"{row.value:10.1%}" if row else f"{'':10}" for row in cells))

# %%
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for offset, (kind, colour) in enumerate({"image": "#0072B2", "both": "#D55E00"}.items()):
    for position, name in enumerate(scores):
        if (row := table.get((name, kind))) is not None:
            error = [[100 * (row.value - row.low)], [100 * (row.high - row.value)]]
            y = position + 0.24 * (offset - 0.5)
            axis.errorbar(100 * row.value, y, xerr=error, fmt="o", color=colour, capsize=3)
for kind, colour in {"image": "#0072B2", "image and metadata": "#D55E00"}.items():
    axis.plot([], [], "o", color=colour, label=kind)
axis.set_yticks(range(len(scores)), list(scores))
axis.invert_yaxis()
axis.set_xlabel("kNN accuracy, % (bar: 95 % interval over the validation images)")
axis.legend(fontsize=8, title="features", loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## What this shows, and what it does not
#
# * SimCLR and SatMIPS have learned something: their image features are 7 to 9 points above those
#   of the untrained encoder. For SatMIP, 2 points above, that is not certain.
# * None is better than the statistics of the colours by more than the interval. The trainings are
#   far too short to recommend any of the methods.
# * SatMIPS is 1.8 points above SimCLR, but with another seed it is 0.8 points below. The two seeds
#   of SatMIPS differ by more than the two methods, so this says nothing about which is better.
# * SatMIP alone is below the other two, as in the paper; one seed makes this a hint.
# * With the metadata as features all are higher, the untrained encoders included: most of that
#   gain is not due to the training.
#
# A comparison that can be trusted takes longer training, several seeds, and more validation
# images. A study does all of it, with the baselines, and resumes where it was interrupted:
#
# ```python
# from satmip_jax.studies.runner import run_study
#
# run_study("methods", base, "studies/methods", seeds=3)  # table, plot, every score of every seed
# ```
#
# It scores a spatially blocked split and linear probes as well. [Evaluation](../evaluation.md) has
# all studies, and [results](../results.md) what they gave on EuroSAT.
