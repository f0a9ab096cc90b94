"""Which optional packages are installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata


def check_package_availability(package_name: str, owner: str) -> bool:
    """Whether a package is installed that says to be of an owner: others have packages of the same name.

    Args:
        package_name: Its name on PyPI.
        owner: What stands in the address of its home page, such as ``"huggingface"``.
    """
    try:
        facts = metadata(package_name)
    except PackageNotFoundError:
        return False
    addresses = (address for name in ("Home-page", "Project-URL") for address in facts.get_all(name) or ())
    return any(owner in address for address in addresses)


def is_datasets_available() -> bool:
    """Whether the datasets of Hugging Face are installed."""
    return check_package_availability("datasets", "huggingface")


def is_accelerate_available() -> bool:
    """Whether accelerate of Hugging Face is installed."""
    return check_package_availability("accelerate", "huggingface")
