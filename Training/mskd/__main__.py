"""``python -m mskd`` is the ``mskd`` command."""

from mskd.cli import main

main()
