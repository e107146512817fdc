"""Secrets at rest: sealed with a key, so that a copied disk or dump tells nothing.

In: bytes and a key. Out: sealed bytes, and back. The cryptography is Fernet of the `cryptography`
package (AES-128-CBC, HMAC-SHA256), imported when a seal is made.
"""

from __future__ import annotations

from llm_integrations.errors import ConfigError

__all__ = ["Seal"]


class Seal:
    """Closes and opens with one key.

    Args:
        key: from `generate_key`. Two keys separated by a comma: the first one closes, both open,
            which is how a key is changed.

    Raises:
        ConfigError: the key is none, or the `oauth` extra is missing.
    """

    __slots__ = ("_fernet",)

    def __init__(self, key: str) -> None:
        try:
            from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - an extra
        except ImportError:
            raise _extra_missing() from None
        try:
            self._fernet = MultiFernet([Fernet(part.strip()) for part in key.split(",")])
        except ValueError:
            raise ConfigError(
                "the key of the Jira grants is no key; make one with "
                "`llm-integrations jira login --new-key`"
            ) from None

    @staticmethod
    def generate_key() -> str:
        """Return a new key, as text."""
        try:
            from cryptography.fernet import Fernet  # noqa: PLC0415 - an extra
        except ImportError:
            raise _extra_missing() from None
        return Fernet.generate_key().decode()

    def close(self, value: bytes) -> bytes:
        """Return the bytes sealed."""
        return self._fernet.encrypt(value)

    def open(self, sealed: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            ConfigError: it was sealed with another key, or changed since.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - an extra

        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            raise ConfigError(
                "the stored Jira grant does not open with this key: set the key it was sealed "
                "with, or log in again under another grant name"
            ) from None


def _extra_missing() -> ConfigError:
    return ConfigError("OAuth grants need the extra: pip install 'llm-integrations[oauth]'")
