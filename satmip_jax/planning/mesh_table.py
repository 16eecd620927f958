"""Table of meshes and of what each host reads, for topologies that are not here.

`python -m satmip_jax.planning.mesh_table` prints the one in docs/scaling.md.
"""

from __future__ import annotations

from satmip_jax.distributed.device_mesh import describe_mesh, row_blocks, rows_by_process
from satmip_jax.distributed.sharding import make_mesh
from satmip_jax.planning.accelerators import ACCELERATORS
from satmip_jax.planning.planned_devices import planned_devices

ROWS_PER_DEVICE = 16
# (accelerator, topology, slices, fsdp)
MESHES = (
    ("v4", "2x2x1", 1, 1),
    ("v4", "2x2x4", 1, 1),
    ("v4", "2x2x4", 1, 4),
    ("v4", "4x4x4", 1, 2),
    ("v5e", "2x4", 1, 1),
    ("v5e", "4x4", 1, 1),
    ("v5e", "4x4", 1, 4),
    ("v5e", "16x16", 1, 1),
    ("v5e", "16x16", 1, 16),
    ("v5e", "16x16", 2, 4),
    ("v5p", "2x2x2", 1, 1),
    ("v5p", "4x4x4", 1, 4),
    ("v5p", "8x8x8", 2, 8),
    ("v6e", "4x4", 1, 2),
    ("v6e", "16x16", 4, 1),
    ("h100", "8", 1, 8),
    ("h100", "64", 1, 1),
    ("h100", "64", 1, 8),
    ("h100", "64", 1, 16),
)


def mesh_table() -> str:
    """Return the table as Markdown."""
    lines = [
        "| topology | hosts | mesh | batch | rows of each host | rows of host 0 |",
        "|---|---|---|---|---|---|",
    ]
    for name, topology, slices, fsdp in MESHES:
        devices = planned_devices(ACCELERATORS[name], topology, slices)
        mesh = make_mesh(devices, fsdp=fsdp)
        batch = ROWS_PER_DEVICE * mesh.size
        rows = rows_by_process(mesh, batch)
        blocks = [f"{first}-{last}" for first, last in row_blocks(rows[0])]
        label = f"{name} {topology}" if slices == 1 else f"{slices} x {name} {topology}"
        numbers = sorted({len(mine) for mine in rows.values()})
        lines.append(
            f"| {label} | {len(rows)} | {describe_mesh(mesh)} | {batch:,} | "
            f"{' or '.join(map(str, numbers))} | {', '.join(blocks)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(mesh_table())
