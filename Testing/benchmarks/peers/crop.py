"""Cuts a cube out of the middle of an image.

python -m peers.crop IMAGE OUTPUT --side 40
"""

from __future__ import annotations

import argparse

import SimpleITK as sitk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("output")
    parser.add_argument("--side", type=int, required=True)
    options = parser.parse_args()
    image = sitk.ReadImage(options.image)
    starts = [max(0, (size - options.side) // 2) for size in image.GetSize()]
    x, y, z = (slice(start, start + options.side) for start in starts)
    sitk.WriteImage(image[x, y, z], options.output)


if __name__ == "__main__":
    main()
