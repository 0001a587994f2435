"""Installs, after asking, the Python packages that Slicer lacks; called when the user presses a button."""

import importlib.util

from slicer.i18n import tr as _


def ensure_packages(requirements_path: str) -> None:
    """Bring in the requirements file's packages: all that measuring needs; raises RuntimeError when that fails."""
    import slicer.packaging

    requirements = slicer.packaging.load_requirements(requirements_path)
    slicer.packaging.pip_ensure(requirements, requester="AirwaySeg")


def ensure_dependencies(requirements_path: str) -> None:
    """Bring in the requirements file's packages and PyTorch; raises RuntimeError with a sentence when that fails."""
    ensure_packages(requirements_path)
    if importlib.util.find_spec("torch") is not None:
        return
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise RuntimeError(_("Install the extension PyTorch with the Extensions Manager first.")) from error
    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
        raise RuntimeError(_("PyTorch is needed and was not installed."))
