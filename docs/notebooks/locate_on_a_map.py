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
# # Locate on a map
#
# A model that was trained to match images with their locations can be asked where an image was
# taken. It answers with a probability for every cell of land. Here you draw these maps, and check
# whether the probabilities can be believed. It takes about a minute on a CPU, and downloads
# nothing.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from PIL import Image

import satmip_jax as sm
from satmip_jax import pretrained
from satmip_jax.geography.grid import great_circle
from satmip_jax.geography.land import lines

CELL = 0.5  # degrees, side of the cells that are searched

# %% [markdown]
# The twenty chips are Sentinel-2 images of Europe that the model has not seen. Each GeoTIFF states
# its place, which serves as the truth; the model sees the pixels alone.

# %%
chips = pretrained.copy_examples(Path("chips"))
model = sm.load("eurosat-satmips")
locations = model.locate(chips, cell=CELL, progress=False)
print(locations[0].search)

# %% [markdown]
# An answer has the likeliest places (discs of 200 km), the probability that the image was taken
# within 200 or 750 km of the first, and the radius that holds half or 90 % of the probability.

# %%
location = locations[0]
print(Path(location.name).name)
for place in location.places[:3]:
    where = f"{place.latitude:.2f} N {place.longitude:.2f} E, {place.country}"
    print(f"  {where}: {place.probability:.0%}")
print({f"within {km} km": f"{p:.0%}" for km, p in location.within.items()})
print({f"{share:.0%} within": f"{km:.0f} km" for share, km in location.radius.items()})

# %% [markdown]
# ## Maps
#
# `location.search.grid` turns one value per cell into an image, and the package has the coasts and
# borders of Natural Earth.


# %%
def draw_map(axis, location, chip):
    grid = location.search.grid
    west, south, east, north = grid.region
    density = grid.image(location.probabilities / grid.areas)  # per km2; NaN on water
    axis.imshow(
        np.sqrt(density / np.nanmax(density)),
        extent=(west, east, south, north),
        cmap="YlOrBr",
        interpolation="nearest",
    )
    for kind, colour in (("borders", "#b4bbc2"), ("coasts", "#66727d")):
        axis.add_collection(LineCollection(lines(kind), colors=colour, linewidths=0.5))
    axis.plot(*location.place, "o", color="#c1272d", markersize=5, mec="white", label="estimate")
    axis.plot(
        *location.true_place, "*", color="#0b6e4f", markersize=12, mec="white", label="stated"
    )
    axis.set_xlim(west, east)
    axis.set_ylim(south, north)
    axis.set_aspect(1 / np.cos(np.radians((south + north) / 2)))
    axis.set_facecolor("#eaf0f5")
    axis.tick_params(labelsize=7)
    away = float(great_circle(np.array(location.place), np.array(location.true_place)))
    stated = f"{away:,.0f} km away; within 200 km: {location.within[200]:.0%}"
    axis.set_title(f"{chip.stem}\n{stated}", fontsize=8)
    inset = axis.inset_axes((0.0, 0.7, 0.3, 0.3))
    inset.imshow(Image.open(chip))
    inset.set(xticks=[], yticks=[])
    inset.set_anchor("NW")


NAMES = ("AnnualCrop_4", "PermanentCrop_5", "River_9", "SeaLake_13")
shown = [[chip.stem for chip in chips].index(name) for name in NAMES]
figure, axes = plt.subplots(2, 2, figsize=(8, 8), layout="constrained")
for axis, i in zip(axes.flat, shown, strict=True):
    draw_map(axis, locations[i], chips[i])
axes[1, 0].set_xlabel("degrees east", fontsize=8)
axes[1, 0].set_ylabel("degrees north", fontsize=8)
axes[0, 0].legend(loc="lower right", fontsize=7)
figure.suptitle("Probability per km², darker is higher (square root)", fontsize=9)
plt.show()

# %% [markdown]
# ## How far off, and did the model know?
#
# The distance between the estimate and the stated place says how good the guesses are. A
# probability says how much to rely on one: of the images said to be within 200 km with 30 %, three
# in ten should be.

# %%
estimates = np.array([location.place for location in locations])
stated_places = np.array([location.true_place for location in locations])
distance = great_circle(estimates, stated_places)
within = {km: np.array([location.within[km] for location in locations]) for km in (200, 750)}

print(f"distance: median {np.median(distance):,.0f} km")
for km, stated in within.items():
    print(
        f"within {km} km: {np.sum(distance <= km)} of {len(chips)}; "
        f"expected from the probabilities: {stated.sum():.1f}"
    )

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
radius = np.array([location.radius[0.9] for location in locations])
order = np.argsort(radius)
axis.bar(range(len(chips)), radius[order], color="#d9e2e8", label="radius that holds 90 %")
axis.plot(
    range(len(chips)), distance[order], "o", color="#c1272d", label="distance of the estimate"
)
axis.set_xticks(range(len(chips)), [chips[i].stem for i in order], rotation=90, fontsize=7)
axis.set_ylabel("km")
axis.legend(fontsize=8)
axis.set_title("Stated 90 % radius, and where the chip really is", fontsize=9)
plt.show()
print(f"inside of the radius: {np.sum(distance <= radius)} of {len(chips)}, expected 18")

# %% [markdown]
# ## How much is the image, and how much the prior?
#
# By default the prior is the density of the training's places: where many images come from, an
# image is likelier to come from. With `prior="uniform"` every km2 of land in the region counts the
# same.

# %%
uniform = model.locate(chips, cell=CELL, prior="uniform", progress=False)
without = np.array([location.place for location in uniform])
print(f"prior of the training: median {np.median(distance):,.0f} km")
print(f"uniform prior: median {np.median(great_circle(without, stated_places)):,.0f} km")

grid = locations[0].search.grid
shares = grid.areas / grid.areas.sum()
centre = np.average(grid.places, axis=0, weights=shares)  # of the land that is searched
guess = np.median(great_circle(np.broadcast_to(centre, stated_places.shape), stated_places))
print(f"always guessing the middle of the region: median {guess:,.0f} km")

# %% [markdown]
# ## What this shows, and what it does not
#
# * The model knows something: its guesses are closer than the middle of the region, and far from
#   all equal. The prior adds nothing on these chips.
# * On them it promises more than it holds: fewer are within 200 km than its probabilities add up
#   to. Trust the order of the probabilities more than their size.
# * Twenty chips are an illustration. Over all 4,050 val chips the median distance is 169 km. That
#   number in turn flatters the model: val chips are cut from the same scenes as training chips, so
#   it may know the place. On places without training images the median is [778
#   km](../results.md#where-an-image-was-taken).
# * Outside of Europe, or on images of another sensor, this model knows nothing, whatever it
#   answers.
#
# A model of your own is calibrated once, by `satmip calibrate`: see [where, when and by which
# sensor](../inference.md#where-when-and-by-which-sensor).
