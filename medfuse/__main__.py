"""``python -m medfuse``: the command ``medfuse``."""

from medfuse.cli import main

if __name__ == "__main__":
    main()
