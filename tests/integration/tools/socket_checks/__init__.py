"""How sockets behave, told by assertions that hold on Linux. Each function check_NAME is one check."""

from . import descriptors, ending, moving, opening, processes, several, waiting


def checks() -> dict:
    """By name, without the "check_"."""
    return {name.removeprefix("check_"): function
            for module in (opening, moving, ending, waiting, descriptors, several, processes)
            for name, function in vars(module).items() if name.startswith("check_")}
