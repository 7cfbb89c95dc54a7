"""`python -m tests.contract.without_heavy_packages …` is `dnctl …` where nothing heavy can be imported."""

import sys

HEAVY = ("torch", "torchvision", "timm", "ray", "nvidia")


def main() -> None:
    sys.modules.update(dict.fromkeys(HEAVY))  # importing a module that is None raises ModuleNotFoundError
    from orchestrator.cli.app import main as dnctl

    dnctl()


if __name__ == "__main__":
    main()
