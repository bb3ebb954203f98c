"""Network addresses, for client and server."""

import ipaddress


def is_loopback(target: str) -> bool:
    """Whether host:port names this machine."""
    host = target.rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
