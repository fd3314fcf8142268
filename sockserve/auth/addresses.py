"""
Identity by address: the mix-in of handlers that know clients by their addresses.

This room owns when that is asked.  It must not know networks: a checker does.
(handler's thread)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sockserve.auth.checkers import AddressChecker
from sockserve.auth.credentials import AddressCredentials, IAddressCredentials
from sockserve.auth.mixin import AuthMixIn
from sockserve.interfaces import NotAuthenticated, Refusal

__all__ = ["AddressAuthMixIn"]


class AddressAuthMixIn(AuthMixIn):
    """
    A handler that knows its clients by their addresses, before C{handle} begins.

    @cvar networks: the users by network, as L{AddressChecker} takes them; asked where the server's
        portal has no checker of addresses.
    @cvar requires_address: whether a client whose address is nobody's is refused; else its
        C{identity} is None.
    """

    networks: ClassVar[Mapping[str, str]] = {}
    requires_address: ClassVar[bool] = True

    @classmethod
    def prepare_server(cls, server: Any) -> None:
        """
        Check L{networks}.

        @raise ConfigurationError: one of them is none.
        """
        super().prepare_server(server)
        AddressChecker(cls.networks)

    def setup(self) -> Any:
        """
        Find out whose address it is.

        @raise NotAuthenticated: it is nobody's.
        """
        result = super().setup()
        portal = self._portal_for(IAddressCredentials, AddressChecker(self.networks))
        assert portal is not None
        credentials = AddressCredentials(self.client_address)
        try:
            self._log_in_now(portal, credentials, "address", "")
        except NotAuthenticated as failure:
            if self.requires_address or failure.refusal is not Refusal.CREDENTIALS:
                self._count(failure)
                self._undo_setup()
                raise
        return result
