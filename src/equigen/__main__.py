"""``python -m equigen``: the command, for launchers that start a module (torchrun, accelerate)."""

from equigen.cli import main

if __name__ == "__main__":
    main()
