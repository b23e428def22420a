"""The files that a configuration names, looked at when it is taken again."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from mtatwist.config import Config
from mtatwist.control.config_files import try_files
from mtatwist.tls.keypair import CertificateError, Files, read
from mtatwist.tls.watch import CertificateWatch


class Found(NamedTuple):
    """What is in them: the paths of certificates that are not in force yet, and what somebody should know."""

    certificates: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class NamedFiles:
    """They are all read by themselves when they change; this is for whoever wants to hear at once what came of it."""

    def __init__(self, certificates: CertificateWatch | None) -> None:
        """``certificates``: what is shown to clients, where there is TLS."""
        self._certificates = certificates

    def look(self, config: Config) -> Found:
        """In a thread: read them all. Raises ConfigError where any can't be used, as ``mtactl config check`` would."""
        if config.embedded:
            # They are our own.
            return Found()
        warnings = try_files(config)
        return Found(tuple(self._renewed(config)), tuple(warnings))

    def _renewed(self, config: Config) -> list[str]:
        if self._certificates is None:
            return []
        in_force = {pair.files: pair.chain for pair in self._certificates.in_force}
        renewed = []
        for each in config.tls.pairs:
            files = Files(*each)
            # One that can't be read again is among the warnings.
            with contextlib.suppress(CertificateError):
                if read(files).chain != in_force.get(files):
                    renewed.append(files.certificate)
        return renewed

    def refused(self) -> None:
        """The configuration is not taken. Certificates stand each for itself: those that are well are not held up."""
        if self._certificates is not None:
            self._certificates.reload()
