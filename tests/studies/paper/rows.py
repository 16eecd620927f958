"""Hand-made rows of the comparison: what a tracker's table holds, without a run."""

from satmip_jax.studies.paper.scores import PaperScores

FULL = {"simclr": 0.611, "satmip": 0.552, "satmips": 0.623}
BOTH = {"satmip": 0.631, "satmips": 0.686}
METADATA = {"fields": 0.081, "untrained": 0.139, "satmip": 0.278}
GROUPS = {
    "GSD": 0.374,
    "Time": 0.437,
    "Location": 0.471,
    "Angles": 0.411,
    "GSD+Time+Location": 0.507,
    "all": 0.508,
}
WOBBLE = (0.0, 0.002, -0.001)  # by seed


def row(variant, seed, value, *, features="image", dataset="toy", protocol="linear", **more):
    common = {"variant": variant, "seed": seed, "value": value, "features": features}
    return {
        **common,
        "dataset": dataset,
        "protocol": protocol,
        "metric": "macro_f1",
        "low": None,
        "high": None,
        **more,
    }


def scores(rows, *, transfers=(), reasons=None, protocol="linear"):
    by_variant = {}
    for entry in rows:
        by_variant.setdefault(entry["variant"], []).append(entry)
    return PaperScores("toy", transfers, protocol, by_variant, reasons or {})


def paper_rows(seeds=(0, 1, 2)):
    """Rows with the paper's own numbers, a little different for each seed."""
    rows = []
    for seed in seeds:
        wobble = WOBBLE[seed]
        by_kind = {
            "image": FULL | GROUPS | {"satmips-half": 0.609, "simclr-full": FULL["simclr"]},
            "both": BOTH,
            "metadata": {name: x for name, x in METADATA.items() if name != "fields"},
        }
        for kind, values in by_kind.items():
            for number, (variant, value) in enumerate(values.items()):
                shift = wobble * 0.1 * (number % 4 - 1.5)
                rows.append(row(variant, seed, value + shift, features=kind))
    for name in ("fields", "numbers"):
        rows.append(row(name, None, METADATA["fields"], features="metadata"))
    for method, (time, memory) in {"satmip": (0.5, 0.6), "satmips": (1.3, 1.05)}.items():
        cost = {"features": "", "protocol": "timed"}
        time_row = row(method, 0, time, **cost, low=time - 0.01, high=time + 0.01)
        rows.append(time_row | {"metric": "relative_step_time"})
        rows.append(row(method, 0, memory, **cost) | {"metric": "relative_compiled_memory"})
    return rows
