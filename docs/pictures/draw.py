"""Draw the pictures of README and site, light and dark: docs/pictures/*.svg.

python docs/pictures/draw.py [NAME ...]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import blocks_picture
import method_picture
import results_picture
import ring_picture
from style import PALETTES

PICTURES = {
    "method": method_picture.draw,
    "results": results_picture.draw,
    "ring": ring_picture.draw,
    "blocks": blocks_picture.draw,
}


def main() -> None:
    """Draw the pictures that are named; all by default."""
    for name in sys.argv[1:] or PICTURES:
        for suffix, palette in PALETTES.items():
            path = Path(__file__).with_name(f"{name}{suffix}.svg")
            description = results_picture.describe() if name == "results" else None
            metadata = {"Date": None, "Description": description}
            PICTURES[name](palette).savefig(path, metadata=metadata)
            lines = (line.rstrip() for line in path.read_text().splitlines())
            path.write_text(re.sub(r"\n{2,}", "\n", "\n".join(lines)) + "\n")
            print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
