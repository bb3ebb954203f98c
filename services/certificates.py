"""Development certificates: a private authority and a server certificate for the names given. Not for production."""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_DAYS = 30


@dataclass(frozen=True)
class Certificates:
    """Paths of what was written."""

    authority: Path
    """For clients to trust."""
    certificate: Path
    private_key: Path
    """Mode 0600."""
    clients: tuple[tuple[Path, Path], ...] = ()
    """Certificate and private key of each client."""


def make_certificates(
    directory: Path, names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1"), clients: tuple[str, ...] = ()
) -> Certificates:
    """Write authority.pem, server.pem and server.key to `directory`, and NAME.pem and NAME.key for each client.

    The authority's key is not kept: what it signed is all that it will sign.
    """
    directory.mkdir(parents=True, exist_ok=True)
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "THE-X development authority")])
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )

    def signed(subject: str, key: ec.EllipticCurvePrivateKey, alternatives: tuple[str, ...]) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        return (
            _builder(name, authority_name, key.public_key())
            .add_extension(
                x509.SubjectAlternativeName([_general_name(alternative) for alternative in alternatives]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(authority_key, hashes.SHA256())
        )

    authority_file = directory / "authority.pem"
    authority_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    certificate, private_key = _write(directory / "server", signed(names[0], server_key, names), server_key)
    of_clients = []
    for client in clients:
        client_key = ec.generate_private_key(ec.SECP256R1())
        of_clients.append(_write(directory / client, signed(client, client_key, (client,)), client_key))
    return Certificates(authority_file, certificate, private_key, tuple(of_clients))


def _write(stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """STEM.pem, and STEM.key of mode 0600."""
    certificate_file, key_file = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key")
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.unlink(missing_ok=True)
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return certificate_file, key_file


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
