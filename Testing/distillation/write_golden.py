"""Rewrites golden.json from the oracle: ``python Testing/distillation/write_golden.py``. No test ever does this."""

from __future__ import annotations

import json
from pathlib import Path

from golden_cases import cases, expected

TARGET = Path(__file__).with_name("golden.json")


def main() -> None:
    numbers = {name: expected(case) for name, case in cases().items()}
    TARGET.write_text(json.dumps(numbers, indent=1) + "\n")
    print(f"wrote {len(numbers)} numbers to {TARGET}")


if __name__ == "__main__":
    main()
