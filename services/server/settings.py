"""How to serve: from flags, else the environment (THEX_...), else a TOML file, else defaults."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from services.addresses import is_loopback
from services.server.limits import Limits

Authentication = Literal["none", "token", "mtls"]


class Settings(BaseSettings):
    """Everything that an operator may choose."""

    model_config = SettingsConfigDict(env_prefix="THEX_", env_nested_delimiter="__", frozen=True, extra="forbid")

    bundle: Path
    address: str = "127.0.0.1:8443"
    """host:port to listen on; port 0 takes a free one."""
    certificates: Path | None = Path("certificates")
    """Directory with server.pem and server.key, and authority.pem for `mtls`; read anew when they change.

    None: no TLS, loopback only.
    """
    authentication: Authentication = "none"
    """Who clients are: nobody knows (`none`, loopback only unless `allow_anonymous`), bearers of a token, or certified."""
    allow_anonymous: bool = False
    """Serve strangers on other than loopback addresses. Key sets are then protected by their unguessable names alone."""
    tokens: Path = Path("tokens.json")
    """Where `thex tokens` keeps the hashes of bearer tokens; read anew when it changes."""
    key_directory: Path | None = None
    """Where clients' keys are kept; a temporary directory without it."""
    cache_directory: Path | None = None
    """Where encoded plaintexts are kept between starts; nowhere without it."""
    workers: int = Field(1, ge=1)
    threads: int = Field(2, ge=1)
    """Threads of one worker."""
    metrics_address: str | None = None
    """host:port of Prometheus metrics over HTTP; none without it."""
    reflection: bool = False
    """Answer gRPC reflection."""
    traces: bool = False
    """OpenTelemetry spans, exported as the OTEL_ variables say."""
    insecure_test_ring: int | None = None
    """Tests only: plan for a ring of this degree, far too small to be secure; clients refuse it unless they are tests too."""
    limits: Limits = Limits.model_validate({})

    @model_validator(mode="after")
    def _strangers_are_known_or_near(self) -> Self:
        loopback = is_loopback(self.address)
        if self.certificates is None and not loopback:
            raise ValueError(f"without TLS only loopback addresses are served, not {self.address}: see `thex certs`")
        if self.authentication == "mtls" and self.certificates is None:
            raise ValueError("authentication 'mtls' needs certificates: see `thex certs`")
        if self.authentication == "none" and not loopback and not self.allow_anonymous:
            raise ValueError(
                f"{self.address} is open to strangers: choose authentication 'token' (see `thex tokens`) or 'mtls', "
                "or allow_anonymous"
            )
        return self

    def printable(self) -> dict[str, Any]:
        """Plain values. Nothing here is secret: tokens and keys are in files that are only named."""
        value: dict[str, Any] = json.loads(self.model_dump_json())
        return value


class _Defaults(PydanticBaseSettingsSource):
    """What the caller takes where nobody chose."""

    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = dict(values)

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """One value."""
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All of them."""
        return self._values


def load_settings(
    file: Path | None,
    flags: Mapping[str, Any],
    assignments: Sequence[str] = (),
    *,
    defaults: Mapping[str, Any] = MappingProxyType({}),
    insecure: bool = False,
) -> Settings:
    """Settings from all sources. `assignments` are `name=value` or `limits.name=value`, as given to `--set`.

    Raises ValueError with one line that names the setting, what was wrong and what was expected.
    """
    values = {name: value for name, value in flags.items() if value is not None}
    if insecure:
        values["certificates"] = None
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, not {assignment!r}")
        table = values
        *parents, leaf = name.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[leaf] = text
    if file is not None and not file.is_file():
        raise ValueError(f"the configuration file {file} does not exist")

    class FromFile(Settings):
        # The library takes the file from the class, so each call has a class of its own.
        model_config = SettingsConfigDict(toml_file=file)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            in_file = TomlConfigSettingsSource(settings_cls)
            return init_settings, env_settings, in_file, _Defaults(settings_cls, defaults)

    try:
        return FromFile(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
