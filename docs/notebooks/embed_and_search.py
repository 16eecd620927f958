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
# # Embed and search
#
# A trained model turns an image into a vector, and its metadata into another one. Here you embed
# twenty satellite images, look for similar ones, write the vectors to a file, and search it by
# image, by place and by both. It takes about a minute on a CPU, and downloads nothing.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import satmip_jax as sm
from satmip_jax import pretrained

# %% [markdown]
# The package brings twenty Sentinel-2 chips of EuroSAT, two per class. They are GeoTIFFs of 64 x
# 64 pixels of 10 m, so each one states where it was taken. The model has not seen them.

# %%
chips = pretrained.copy_examples(Path("chips"))
names = [chip.stem for chip in chips]
classes = [name.split("_")[0] for name in names]
print(len(chips), "chips:", ", ".join(dict.fromkeys(classes)))

# %% [markdown]
# ## Load a model and embed
#
# `sm.load` takes the folder of your own run, or the name of a model in the package. `model.fields`
# are the metadata that this one takes in: it was trained on locations, and on what follows from
# them.

# %%
model = sm.load("eurosat-satmips")
print(model)
print("fields:", ", ".join(model.fields))

features = model.embed_images(chips, progress=False)
print("features:", features.shape, features.dtype)

# %% [markdown]
# ## Which chips look alike?
#
# A few directions of the raw features vary most and would decide every comparison. So each
# dimension is standardized first, over the chips at hand; then the cosine compares two images.

# %%
standardized = (features - features.mean(axis=0)) / features.std(axis=0)
directions = standardized / np.linalg.norm(standardized, axis=1, keepdims=True)
cosine = directions @ directions.T
np.fill_diagonal(cosine, -np.inf)  # a chip is not its own neighbour
order = np.argsort(-cosine, axis=1)

QUERIES = ("Forest_4", "Highway_8", "Residential_16", "River_9")
SHOWN = 4
figure, axes = plt.subplots(len(QUERIES), 1 + SHOWN, figsize=(6.4, 5.8), layout="constrained")
for row, query in zip(axes, map(names.index, QUERIES), strict=True):
    for axis, chip in zip(row, [query, *order[query, :SHOWN]], strict=True):
        axis.imshow(Image.open(chips[chip]))
        axis.set(xticks=[], yticks=[])
        same = chip != query and classes[chip] == classes[query]
        value = "query" if chip == query else f"cosine {cosine[query, chip]:.2f}"
        axis.set_title(f"{classes[chip]}\n{value}", fontsize=6, fontweight="bold" if same else None)
figure.suptitle("Nearest of the 19 other chips; bold: of the same class", fontsize=9)
plt.show()

# %% [markdown]
# Only one of the 19 others is of the query's class, so chance finds it first for one of twenty
# chips.

# %%
first = [classes[best] == name for best, name in zip(order[:, 0], classes, strict=True)]
print(f"the nearest chip is of the same class for {sum(first)} of {len(chips)} chips")

# %% [markdown]
# ## Which image belongs to which place?
#
# SatMIPS was trained to match images with their metadata, so both can be compared in one space.
# Row by row, the figure shows how well an image fits the place of each chip. `stated_place` reads
# it from the GeoTIFF; the image encoder never sees it.

# %%
from satmip_jax.geolocation.locate import stated_place

places = [stated_place(chip) for chip in chips]
similarity = model.similarity(chips, [{"location": place} for place in places], progress=False)

figure, axis = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
picture = axis.imshow(similarity, cmap="viridis")
axis.plot(range(len(chips)), range(len(chips)), "o", markersize=4, mfc="none", color="white")
axis.set_xticks(range(len(chips)), names, rotation=90, fontsize=7)
axis.set_yticks(range(len(chips)), names, fontsize=7)
axis.set_xlabel("place of this chip")
axis.set_ylabel("image")
axis.set_title("Cosine of images and places; circles: the chip's own place", fontsize=9)
figure.colorbar(picture, label="cosine")
plt.show()

own = np.diag(similarity)[:, None]
ranks = 1 + (similarity > own).sum(axis=1)
print(f"rank of the own place among {len(chips)}: median {np.median(ranks):g}, chance {10.5}")

# %% [markdown]
# For at least half of the images no other of the twenty places fits better than their own. But
# many of the others are easy to exclude, and twenty chips are an illustration, no measurement.
#
# ## Image and metadata together
#
# `embed` puts the features of the image and of its metadata side by side, each scaled alike.
# `weight` is that of the metadata.

# %%
records = [{"location": place} for place in places]
both = model.embed(chips, records, weight=0.5, progress=False)
print(both.shape)

# %% [markdown]
# ## Many images: a file of embeddings
#
# `embed_files` reads images, folders, zips, tables and STAC catalogues, resumes if it is
# interrupted, and writes GeoParquet, which geopandas, DuckDB and QGIS open.

# %%
from satmip_jax.inference.embed.run import embed_files
from satmip_jax.inference.embed.table import EmbeddingTable

report = embed_files(model, ["chips"], "chips.parquet", progress=False, announce=lambda text: None)
table = EmbeddingTable.open("chips.parquet")
print(report.rows, "rows; some columns of the first one:")
for name in ("id", "location", "utm_zone", "gsd"):
    print(f"  {name}: {table.rows([0])[0][name]}")

# %% [markdown]
# `search` ranks the rows by similarity to images, to rows of the file (`ids`), or to described
# metadata. A term with `=` describes what is sought; terms with `<`, `>` and `==` filter rows by
# what they state.

# %%
from satmip_jax.inference.search.run import search


def show(title, results):
    print(title)
    for hit in results.hits:
        longitude, latitude = hit.values["location"]
        name = Path(hit.values["path"]).stem
        print(
            f"  {hit.rank}. {name:24} {latitude:5.1f} N {longitude:6.1f} E  score {hit.score:5.2f}"
        )


show("like River_9:", search(table, ids=["chips/River_9.tif"], count=3))
show(
    "like Forest_4, north of 50 degrees:",
    search(table, model=model, images=chips[names.index("Forest_4")], where="latitude>50", count=3),
)
show(
    "fits a place in Sicily (14 E, 37.5 N), whatever the rows state:",
    search(table, model=model, where="location=14,37.5", count=3),
)

# %% [markdown]
# Among so few chips the second hit may be one that looks alike and is something else: a lake as
# dark as the forest. In the last search the rows' own locations play no part: the model says which
# images look as if they were taken there. None was, and all three are from the south.
#
# ## Next
#
# * The files are those of `satmip embed` and `satmip search`, so you can go on in the shell.
# * [Trained models in use](../inference.md) has all forms of input, and search among millions of
#   images.
# * [Locate on a map](locate_on_a_map.ipynb) asks where an image was taken, with probabilities.
