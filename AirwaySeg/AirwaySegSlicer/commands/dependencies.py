"""Installs missing Python packages, after asking; called when the user presses a button."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import logging
import os

from slicer.i18n import tr as _

LEAST_TORCH = "2.4"
"""As in pyproject.toml."""

_offered: set[str] = set()
"""Files of optional packages about which the user was asked since Slicer started."""


def ensure_packages(requirements_path: str) -> None:
    """Install the requirements file's packages, which measuring needs; raises RuntimeError when that fails."""
    import slicer.packaging

    requirements = slicer.packaging.load_requirements(requirements_path)
    slicer.packaging.pip_ensure(requirements, requester="AirwaySeg")


def ensure_dependencies(requirements_path: str, again: bool = False) -> None:
    """Install the requirements file's packages and PyTorch, and offer the optional packages.

    Optional packages are offered once per Slicer session, or ``again``; without them the module works more slowly.
    Raises RuntimeError with a sentence when a required package is missing or too old afterwards.
    """
    ensure_packages(requirements_path)
    ensure_torch()
    offer_packages(optional_requirements(requirements_path), again)


def optional_requirements(requirements_path: str) -> str:
    """The path of the optional requirements beside the required ones."""
    stem, ending = os.path.splitext(requirements_path)
    return f"{stem}-optional{ending}"


def offer_packages(requirements_path: str, again: bool) -> None:
    """Ask whether to install the packages; a refusal or failure is only logged."""
    if requirements_path in _offered and not again:
        return
    _offered.add(requirements_path)
    try:
        ensure_packages(requirements_path)
    except Exception as error:  # Slicer's pip_ensure raises various exceptions.
        logging.warning(f"AirwaySeg works more slowly without an optional package: {error}")


def ensure_torch() -> None:
    """Have the PyTorch extension install PyTorch where it is missing; raises RuntimeError with a sentence."""
    if importlib.util.find_spec("torch") is None:
        install_torch()
    version = torch_version()
    if version and is_older(version, LEAST_TORCH):
        sentence = _(
            "PyTorch {version} is too old, {least} or newer is needed: open the module PyTorch, uninstall PyTorch, "
            "restart Slicer and press Install what is missing."
        )
        raise RuntimeError(sentence.format(version=version, least=LEAST_TORCH))


def install_torch() -> None:
    """Install PyTorch through the PyTorch extension, which finds the build for this computer's GPU."""
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise RuntimeError(_("Install the extension PyTorch with the Extensions Manager first.")) from error
    install = PyTorchUtils.PyTorchUtilsLogic().installTorch
    options = {"askConfirmation": True, "torchVersionRequirement": f">={LEAST_TORCH}"}
    known = inspect.signature(install).parameters
    if install(**{name: value for name, value in options.items() if name in known}) is None:
        raise RuntimeError(_("PyTorch is required, and was not installed."))


def torch_version() -> str:
    """The version of the installed PyTorch, without importing it; empty where there is none."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def is_older(version: str, least: str) -> bool:
    """Whether a version such as 2.4.0+cpu is older than another."""
    from packaging.version import Version

    return Version(version) < Version(least)
